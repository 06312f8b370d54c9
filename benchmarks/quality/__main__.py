"""`python -m benchmarks.quality`: train each model in a process of its own, then write the report."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.report import markdown, tables, write_report
from benchmarks.quality.results import Results, open_results
from benchmarks.quality.scoring import open_arrays, sheet_ears
from benchmarks.quality.settings import MODELS, ROW_FILE, SETTINGS_FILE, Settings, named_array
from benchmarks.tables import save
from earteach.errors import EarTeachError
from earteach.files.folders import make_folder
from earteach.images import to_uint8

_log = logging.getLogger("benchmarks.quality")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; its defaults are those of `Settings`."""
    default = Settings(train=Path(), val={"": Path()}, minutes=45)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    add = parser.add_argument
    add("--train", type=Path, required=True, help="training images, a .npy array")
    add(
        "--val",
        action="append",
        required=True,
        metavar="NAME=PATH",
        help="validation images, repeatable; earteach validates on the first array",
    )
    add("--out", type=Path, required=True, help="folder of the results")
    add("--save", type=Path, help="JSON file that keeps the tables, for the docs")
    add("--minutes", type=float, default=default.minutes, help="wall-clock of each training")
    add("--models", default=",".join(MODELS), help="models, separated by commas (%(default)s)")
    add("--fresh", action="store_true", help="train again, even if the folder has results")
    for name, meaning in (
        ("latent_dim", "latent dimensions"),
        ("base_channels", "channels of the first block; AutoencoderKL gets half of them"),
        ("image_size", "image size in pixels"),
        ("batch_size", "images in a step"),
        ("threads", "threads of torch"),
        ("points", "points of the curve"),
        ("curve_images", "images of each array for a point of the curve"),
        ("samples", "new ears to compare with real ones; 0 for none"),
        ("seed", "random seed"),
    ):
        value = getattr(default, name)
        add(f"--{name.replace('_', '-')}", type=int, default=value, help=f"{meaning} ({value})")
    add("--workers", type=int, help="loader processes (default: earteach's own)")
    add("--precision", choices=("bf16", "32"), default=default.precision)
    add("--accelerator", choices=("cpu", "gpu", "auto"), default=default.accelerator)
    add("--vae-learning-rate", type=float, default=default.vae_learning_rate)
    add("--kl-learning-rate", type=float, default=default.kl_learning_rate)
    add(
        "--peer-ssim-weight",
        type=float,
        default=default.peer_ssim_weight,
        help="weight of 1 - SSIM in the peers' losses (%(default)s)",
    )
    add(
        "--earteach-options",
        default="",
        metavar="'--OPTION …'",
        help="further options of `earteach train`",
    )
    return parser.parse_args(arguments)  # fmt: skip


def settings_of(parsed: argparse.Namespace) -> Settings:
    """Raises `EarTeachError` for impossible values."""
    known = {name: value for name, value in vars(parsed).items() if name in Settings.names()}
    known["val"] = dict(named_array(text) for text in parsed.val)
    if len(known["val"]) < len(parsed.val):
        raise EarTeachError("--val: two arrays have one name; write them as NAME=PATH")
    known["earteach_options"] = tuple(shlex.split(parsed.earteach_options))
    return Settings(**known)


def chosen_models(text: str) -> list[str]:
    """The models in their order; raises `EarTeachError` for an unknown one."""
    names = {name.strip() for name in text.split(",")}
    if unknown := names - set(MODELS):
        raise EarTeachError(f"--models {', '.join(sorted(unknown))}: there are {', '.join(MODELS)}")
    return [name for name in MODELS if name in names]


def benchmark(
    settings: Settings, out: Path, models: Sequence[str], command: str, *, fresh: bool
) -> Results:
    """Train and measure the models that `out` lacks, and update the report after each one.

    Raises `EarTeachError` if `out` holds something else or a model fails.
    """
    make_folder(out)
    results = open_results(settings, out, command, fresh=fresh)
    originals = to_uint8(sheet_ears(open_arrays(settings), settings))
    for name in models:
        if name in results.rows and not fresh:
            _log.info("%s: kept from %s", name, results.rows[name]["date"])
            continue
        results.add(run_child(name, settings, out))
        write_report(results, out, originals)
    write_report(results, out, originals)
    return results


def run_child(name: str, settings: Settings, out: Path) -> dict[str, Any]:
    """Train and measure one model in a process of its own; returns its row."""
    folder = emptied(out / name)
    settings.save(folder / SETTINGS_FILE)
    threads = str(settings.threads)
    environment = {
        **os.environ,
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads),
        # AutoencoderKL starts from random weights; nothing may be downloaded.
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "benchmarks.quality.child", name, str(folder)]
    process = subprocess.Popen(command, env=environment)
    try:
        code = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if code:
        raise EarTeachError(f"{name}: failed, see above; the earlier rows are kept")
    row: dict[str, Any] = json.loads((folder / ROW_FILE).read_text(encoding="utf-8"))
    return row


def emptied(folder: Path) -> Path:
    """The empty folder of a model; raises `EarTeachError` if it is not this benchmark's."""
    if folder.exists():
        if not (folder / SETTINGS_FILE).exists():
            raise EarTeachError(f"{folder}: exists already; move it away or choose another --out")
        shutil.rmtree(folder)
    return make_folder(folder)


def main(arguments: Sequence[str]) -> int:
    """Print the tables; exit code 0, or 1 after a one-line error."""
    parsed = parse(arguments)
    command = shlex.join(["python", "-m", "benchmarks.quality", *arguments])
    try:
        models = chosen_models(parsed.models)
        results = benchmark(settings_of(parsed), parsed.out, models, command, fresh=parsed.fresh)
    except EarTeachError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(markdown(results), end="")
    if parsed.save:
        save(parsed.save, tables(results))
    return 0


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    # A normal exit, so that the model's process ends too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main(sys.argv[1:]))
