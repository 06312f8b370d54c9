"""Checkpoints: write, find, read, compare, and rebuild a model from one.

A checkpoint is Lightning's with one more entry, `earteach`: the format's version, the configuration,
the data's fingerprints and the metrics. It holds builtin values and tensors only, so that torch's safe
loading reads it and nothing in it can run.
"""

from __future__ import annotations

import errno
import hashlib
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from earteach._version import __version__
from earteach.config import DRAWN, DataConfig, ExportPart, OptimConfig, TrainConfig
from earteach.errors import EarTeachError
from earteach.files.atomic_write import write_atomically
from earteach.files.folders import make_folder
from earteach.model.build import build_model
from earteach.model.network_parts import keep_part
from earteach.model.pretrained import CONFIG, WEIGHTS, read_pretrained
from earteach.model.vae import ConvVAE
from earteach.run_files import BEST, BEST_SSIM, LAST

FORMAT, OLDEST_FORMAT = 4, 3
KEY = "earteach"
# What the `earteach` entry says of a run, with the defaults of what it leaves out.
_DEFAULTS: dict[str, Any] = {
    "task": "train", "part": "full", "epochs_completed": 0, "stopped_by": None, "data": {},
    "metrics": {}, "best": {},
}  # fmt: skip
# Weights that had other names in format 3, whose numbers are the same.
_RENAMED = {
    "linear.": "pca.",
    "encoder.side.judge.": "side.network.",
    "encoder.glance.to_code.": "encoder.coarse_head.linear.",
}
# The network of a run: the moving average of the weights where there is one.
_AVERAGED, _MODEL = "averaged.", "model."
_IN_PACKAGE = {DRAWN: Path(__file__).parent / "weights" / DRAWN}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: its configuration, and everything that Lightning keeps in `state`."""

    path: Path
    config: TrainConfig
    about: dict[str, Any]  # the `earteach` entry
    state: dict[str, Any]

    @property
    def part(self) -> ExportPart:
        """What the state holds of the network."""
        part: ExportPart = self.about["part"]
        return part

    @property
    def epochs_completed(self) -> int:
        return int(self.about["epochs_completed"])

    @property
    def task(self) -> str:
        """What the run trains: the command that began it."""
        return str(self.about["task"])

    @property
    def global_step(self) -> int:
        return int(self.state.get("global_step", 0))

    def model(self) -> ConvVAE:
        """The network with its weights, in evaluation mode, on the CPU.

        Raises `EarTeachError` where the weights do not fit the configuration.
        """
        state = self.state["state_dict"]
        prefix = _AVERAGED if any(name.startswith(_AVERAGED) for name in state) else _MODEL
        weights = {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if name.startswith(prefix)
        }
        with torch.device("meta"):
            model = keep_part(build_model(self.config.model), self.part, str(self.path))
        try:
            model.load_state_dict(weights, assign=True)
        except RuntimeError as error:
            raise EarTeachError(
                f"{self.path}: its weights do not fit its configuration; the file was altered: "
                "train again or use another checkpoint"
            ) from error
        model.float()  # a file from elsewhere may hold float16
        if not all(value.sum().isfinite() for value in model.state_dict().values()):
            raise EarTeachError(
                f"{self.path}: holds NaN or infinite weights; use another checkpoint"
            )
        return model.eval().requires_grad_(True)


def about(config: TrainConfig, data: dict[str, Any], **measured: Any) -> dict[str, Any]:
    """The `earteach` entry of a checkpoint, in builtin values."""
    return {
        "format": FORMAT,
        "version": __version__,
        "config": config.to_dict(),
        "data": data,
        **measured,
    }


def load(path: str | Path) -> ConvVAE:
    """The network that `find` finds, in evaluation mode, on the CPU; "drawn" is in the package."""
    return find(path).model()


def find(path: str | Path) -> Checkpoint:
    """A checkpoint, a folder's best by validation loss, or a folder that `earteach export --format
    safetensors` wrote; where there is no file or folder `drawn`, that is the network in the package.

    Raises `EarTeachError` where there is none or it cannot be read safely.
    """
    path = Path(path)
    if not path.exists():
        path = _IN_PACKAGE.get(str(path), path)
    if (path / CONFIG).exists():
        return _exported(path)
    return read(best(path) if path.is_dir() else path)


def _exported(folder: Path) -> Checkpoint:
    """The folder names no arrays, so they are looked for beside the weights."""
    pretrained = read_pretrained(folder)
    data = DataConfig(train_data=folder / "train_teacher.npy", val_data=folder / "val_teacher.npy")
    optim = OptimConfig() if pretrained.config.pyramid_channels else OptimConfig(teach_weight=0.0)
    config = TrainConfig(model=pretrained.config, data=data, optim=optim)
    weights = {f"{_MODEL}{name}": weight for name, weight in pretrained.weights.items()}
    entry = {**_DEFAULTS, "part": pretrained.part}
    return Checkpoint(folder / WEIGHTS, config, entry, {"state_dict": weights})


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint with torch's safe loading, which runs no code from it.

    Raises `EarTeachError` for a file that is missing, cut short, of another tool, of a newer earteach,
    or that holds more than tensors and builtin values.
    """
    path = Path(path)
    if path.is_dir():
        raise EarTeachError(f"{path}: is a folder; name a checkpoint in it or use --checkpoint-dir")
    if not path.exists():
        raise EarTeachError(f"{path}: no such checkpoint; `earteach train` writes one")
    if not path.is_file():  # of a pipe the first read may never end
        raise EarTeachError(f"{path}: is not a regular file; name a checkpoint")
    state = _load_safely(path)
    if not _is_ours(state):
        raise EarTeachError(f"{path}: is not an earteach checkpoint; name one that earteach wrote")
    _check_format(path, state[KEY])
    state = upgraded(state)
    entry = {**_DEFAULTS, **state[KEY]}
    try:
        config = TrainConfig.from_dict(entry["config"])
    except (EarTeachError, KeyError, TypeError) as error:
        raise EarTeachError(f"{path}: its configuration cannot be read: {error}") from error
    return Checkpoint(path, config, entry, state)


def upgraded(state: dict[str, Any]) -> dict[str, Any]:
    """The state of a checkpoint of format 3 as format 4 names it; others as they are."""
    entry = state.get(KEY, {})
    if entry.get("format") != OLDEST_FORMAT:
        return state
    task = "distil" if "teacher" in entry else "train"
    weights = {_renamed(name): value for name, value in state["state_dict"].items()}
    return {**state, "state_dict": weights, KEY: {**entry, "format": FORMAT, "task": task}}


def _renamed(name: str) -> str:
    network, dot, weight = name.partition(".")
    for old, new in _RENAMED.items():
        if weight.startswith(old):
            return f"{network}{dot}{new}{weight.removeprefix(old)}"
    return name


def _check_format(path: Path, entry: Mapping[str, Any]) -> None:
    if entry["format"] > FORMAT:
        raise EarTeachError(
            f"{path}: was written by earteach {entry.get('version')}, newer than this "
            f"{__version__}; upgrade earteach to read it"
        )
    if entry["format"] < OLDEST_FORMAT:
        raise EarTeachError(
            f"{path}: was written by earteach {entry.get('version')}, whose networks were "
            "different; train again with `earteach train --fresh`"
        )


def _load_safely(path: Path) -> Any:
    try:
        _check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise EarTeachError(f"{path}: no permission to read it; check `ls -l {path}`") from error
    except Exception as error:  # whatever a damaged file makes torch's unpickler raise
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise EarTeachError(
                f"{path}: holds more than tensors and plain values and may contain code, so it was "
                "not loaded; use a checkpoint that earteach wrote"
            ) from error
        others = (path.with_name(LAST), _latest(path.parent, BEST))
        names = [
            f", such as {other}" for other in others if other and other.exists() and other != path
        ]
        raise EarTeachError(
            f"{path}: is cut short or not a checkpoint; use another one{''.join(names[:1])}"
        ) from error


def _check_archive(path: Path) -> None:
    """Raise `BadZipFile` for an archive that holds more than the file has bytes.

    torch stores its members as they are. Compressed ones, or ones that overlap, could fill the memory;
    and the formats of torch before 1.6 are not earteach's.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise zipfile.BadZipFile("compressed")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise zipfile.BadZipFile("overlapping")


def _is_ours(state: Any) -> bool:
    return (
        isinstance(state, dict)
        and isinstance(state.get(KEY), dict)
        and isinstance(state[KEY].get("format"), int)
        and isinstance(state.get("global_step", 0), int)
        and all(
            isinstance(state[KEY].get(n, v), type(v)) for n, v in _DEFAULTS.items() if v is not None
        )
        and state[KEY].get("part", "full") in get_args(ExportPart)
        and isinstance(state.get("state_dict"), dict)
        and all(isinstance(name, str) for name in state["state_dict"])
    )


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def best(folder: Path) -> Path:
    """The folder's best checkpoint by validation loss."""
    return _latest(folder, BEST) or _missing(folder, "best-epoch=….ckpt")


def last(folder: Path) -> Path:
    """The folder's `last.ckpt`."""
    path = folder / LAST
    return path if path.exists() else _missing(folder, LAST)


def _missing(folder: Path, name: str) -> Path:
    raise EarTeachError(
        f"{folder}: holds no {name}; run `earteach train` first, "
        "or name a checkpoint or another --checkpoint-dir"
    )


def _latest(folder: Path, prefix: str) -> Path | None:
    paths = folder.glob(f"{prefix}*.ckpt")
    return max(paths, key=lambda path: _epoch_in(path.name), default=None)


def _epoch_in(name: str) -> int:
    match = re.search(r"epoch=(\d+)", name)
    return int(match[1]) if match else -1


def best_loss_name(epoch: int, value: float) -> str:
    return f"{BEST}{epoch:03d}-loss={value:.6f}.ckpt"


def best_ssim_name(epoch: int, value: float) -> str:
    return f"{BEST_SSIM}{epoch:03d}-ssim={value:.4f}.ckpt"


def write(state: dict[str, Any], path: Path) -> None:
    """Write so that `path` holds the old file or the whole new one, also after a power cut.

    Raises `EarTeachError` where the disk is full or the folder cannot be written.
    """
    _write(path, lambda partial: save_state(state, partial))


def write_network(network: ConvVAE, entry: dict[str, Any], path: Path) -> None:
    """Write a network that was trained without Lightning; `entry` is what `about` returns."""
    weights = {f"{_MODEL}{name}": weight for name, weight in network.cpu().state_dict().items()}
    write({"state_dict": weights, KEY: entry}, path)


def name_again(source: Path, path: Path) -> None:
    """Make `path` a second name of the checkpoint `source`: a hard link if possible, else a copy."""
    _write(path, lambda partial: _link_or_copy(source, partial))


def _write(path: Path, write_to: Callable[[Path], None]) -> None:
    make_folder(path.parent)
    again = f"`earteach resume {path.parent / LAST}`"
    write_atomically(path, write_to, durable=True, again=again)


def save_state(state: dict[str, Any], path: Path) -> None:
    """As `torch.save`; raises `OSError` if the disk is full."""
    try:
        torch.save(state, path)
    except RuntimeError as error:
        # This is how torch's zip writer reports a failed write, without the system's reason.
        raise OSError(errno.ENOSPC, str(error)) from error


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def differences(old: TrainConfig, new: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """The options whose values differ and decide what a run computes: name to (old, new).

    Hardware, workers, where the run is kept and what follows training do not decide it.
    """
    ignored = {
        "checkpoint_dir", "log_dir", "checkpoint_every_n_steps", "sharpen_steps",
        *old.hardware.to_dict(),
    }  # fmt: skip
    before, after = old.resolved_options(), new.resolved_options()
    # An unset learning rate is compared as what it stands for, if it is not unset in both.
    changed = [
        option.name
        for (_, option, value), (_, _, other) in zip(old.options(), new.options(), strict=True)
        if option.name not in ignored and value != other
    ]
    return {name: (before[name], after[name]) for name in changed if before[name] != after[name]}


def listed(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """What `differences` returned, in words: by flag, or by name if nobody can type it."""
    options = {option.name: option for _, option, _ in TrainConfig().options()}
    labels = {
        name: name.replace("_", " ") if options[name].hidden else f"--{name.replace('_', '-')}"
        for name in differing
    }
    return ", ".join(f"{labels[name]} {old} → {new}" for name, (old, new) in differing.items())
