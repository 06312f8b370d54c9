"""The quality benchmark: one small run from end to end, and the parts that its fairness rests on."""

from __future__ import annotations

import csv
import json
import os
import shutil
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from sklearn.decomposition import PCA

import earteach
from benchmarks.quality import peers
from benchmarks.quality.__main__ import main
from benchmarks.quality.command import Keeper, train_command
from benchmarks.quality.kl_autoencoder import KLAutoencoder
from benchmarks.quality.settings import MODELS, Settings, due_times
from benchmarks.quality.standard_vae import StandardVAE
from earteach.config import InferenceConfig
from earteach.errors import EarTeachError

needs_diffusers = pytest.mark.skipif(
    find_spec("diffusers") is None, reason="needs the extra `bench`"
)
LACKING = {"autoencoderkl": find_spec("diffusers") is None}
AVAILABLE = [name for name in MODELS if not LACKING.get(name)]
FIRST = ["pca"]


def arguments(ears: Path, out: Path, *more: str) -> list[str]:
    """A run of a fraction of a second for each model."""
    return [
        "--train", str(ears / "train_teacher.npy"), "--val", f"drawn={ears / 'val_teacher.npy'}",
        "--val", f"seen={ears / 'train_teacher.npy'}", "--out", str(out),
        "--image-size", "32", "--base-channels", "8", "--latent-dim", "64", "--batch-size", "8",
        "--minutes", "0.01", "--threads", "1", "--workers", "0", "--points", "3", "--samples", "6",
        "--curve-images", "4", *more,
    ]  # fmt: skip


@dataclass(frozen=True)
class Benchmark:
    out: Path
    printed: str
    rows: dict[str, Any]
    rows_before: dict[str, Any]


@pytest.fixture(scope="module")
def benchmark(ears: Path, tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    """One model first, then the same command with all of them."""
    out = tmp_path_factory.mktemp("benchmark")
    found = []
    for models in (FIRST, AVAILABLE):
        printed = StringIO()
        with redirect_stdout(printed):
            assert main(arguments(ears, out, "--models", ",".join(models))) == 0
        found.append(rows_in(out))
    return Benchmark(out, printed.getvalue(), found[1], found[0])


def rows_in(out: Path) -> Any:
    return json.loads((out / "results.json").read_text())["models"]


def images(path: Path) -> np.ndarray:
    return np.load(path).astype(np.float64) / 255


def test_every_model_has_a_row(benchmark: Benchmark) -> None:
    assert list(benchmark.rows) == AVAILABLE
    for row in benchmark.rows.values():
        assert set(row["scores"]) == {"drawn", "seen"}
        assert row["scores"]["drawn"]["images"] == 7
        assert row["scores"]["seen"]["images"] == 41
        assert row["curve"]
        assert row["machine"]["threads"] == 1


def test_rows_of_an_earlier_part_are_kept(benchmark: Benchmark) -> None:
    assert list(benchmark.rows_before) == FIRST
    for name in FIRST:
        assert benchmark.rows[name] == benchmark.rows_before[name]


def test_other_settings_are_refused(
    benchmark: Benchmark, ears: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(ears, benchmark.out, "--seed", "7")) == 1
    assert "seed 42 → 7" in capsys.readouterr().err
    assert rows_in(benchmark.out) == benchmark.rows


def test_eigenears_match_scikit_learn(benchmark: Benchmark, ears: Path) -> None:
    train, val = images(ears / "train_teacher.npy"), images(ears / "val_teacher.npy")
    both = np.concatenate([train, train[:, :, ::-1]]).reshape(2 * len(train), -1)
    pca = PCA(n_components=40, svd_solver="full").fit(both)
    flat = val.reshape(len(val), -1)
    decoded = pca.inverse_transform(pca.transform(flat)).clip(0, 1).reshape(val.shape)
    expected = np.mean(
        [peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(val, decoded, strict=True)]
    )
    row = benchmark.rows["pca"]
    assert row["scores"]["drawn"]["psnr"] == pytest.approx(expected, abs=1e-3)
    assert row["facts"]["components"] == 40
    assert row["fitted"] == 41 * 32 * 32 * 3 + 40
    assert row["parameters"] == 0


def test_earteach_has_the_figures_of_its_own_eval(benchmark: Benchmark, ears: Path) -> None:
    """Measured by the benchmark's code, they are those of the command on the last checkpoint."""
    last = benchmark.out / "earteach" / "checkpoints" / "last.ckpt"
    exact = InferenceConfig(precision="32")
    for name, file in (("drawn", "val_teacher.npy"), ("seen", "train_teacher.npy")):
        shown = earteach.evaluate(last, ears / file, baselines=False, config=exact).metrics
        row = benchmark.rows["earteach"]["scores"][name]
        assert row["psnr"] == pytest.approx(shown.psnr, abs=1e-3)
        assert row["ssim"] == pytest.approx(shown.ssim, abs=1e-4)
        assert row["active_units"] == shown.active_units


def test_earteach_is_run_as_a_user_types_it(benchmark: Benchmark) -> None:
    command = benchmark.rows["earteach"]["facts"]["command"]
    assert command.startswith("earteach train --train-data ")
    assert "--epochs 1 " in command
    assert "--precision bf16 " in command
    assert "--learning-rate" not in command


def test_samples_are_measured(benchmark: Benchmark) -> None:
    assert set(benchmark.rows["pca"]["samples"]) == {"prior", "training ears"}
    assert set(benchmark.rows["vae"]["samples"]) == {"prior"}
    assert set(benchmark.rows["earteach"]["samples"]) == {"prior", "gmm"}
    near = benchmark.rows["pca"]["samples"]["training ears"]["frechet"]
    assert near < benchmark.rows["vae"]["samples"]["prior"]["frechet"]


def test_the_table_says_what_and_where(benchmark: Benchmark) -> None:
    assert benchmark.printed == (benchmark.out / "table.md").read_text()
    lines = benchmark.printed.splitlines()
    for name, row in benchmark.rows.items():
        line = next(line for line in lines if line.startswith(f"| {name} |"))
        assert f"| {row['scores']['drawn']['psnr']:.2f} |" in line
    assert torch.__version__ in benchmark.printed
    for models in (FIRST, AVAILABLE):
        assert f"--models {','.join(models)}`" in benchmark.printed


def test_the_curve_has_every_due_time_of_a_peer(benchmark: Benchmark) -> None:
    with (benchmark.out / "curve.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    due = [0.6 * (k / 3) ** 1.5 for k in (1, 2, 3)]
    points = benchmark.rows["vae"]["curve"]
    assert points[-1]["seconds"] >= due[-1]
    assert len({line["seconds"] for line in lines if line["model"] == "vae"}) == len(points)
    # A slow step may pass two due times at once.
    assert 1 <= len(points) <= 3
    assert points[0]["scores"]["drawn"]["images"] == 4


def test_the_sheet_has_a_line_for_each_model(benchmark: Benchmark) -> None:
    with Image.open(benchmark.out / "sheet.png") as sheet:
        height, width = sheet.height, sheet.width
    # Ears of 32 pixels are shown four times as large, six of each array, two pixels apart.
    assert height == (1 + len(AVAILABLE)) * (4 * 32 + 4)
    assert width == 90 + 12 * (4 * 32 + 2) + 2


def test_fresh_replaces_only_what_is_named(
    benchmark: Benchmark, ears: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(benchmark.out, tmp_path / "copy")
    trained = []

    def run_child(name: str, settings: Settings, out: Path) -> Any:
        trained.append(name)
        return {**benchmark.rows[name], "seconds": 1234.0}

    monkeypatch.setattr("benchmarks.quality.__main__.run_child", run_child)
    assert main(arguments(ears, out, "--models", "pca")) == 0
    assert trained == []
    assert main(arguments(ears, out, "--models", "pca", "--fresh")) == 0
    assert trained == ["pca"]
    rows = rows_in(out)
    assert rows["pca"]["seconds"] == 1234
    assert rows["vae"] == benchmark.rows["vae"]
    assert list(rows) == AVAILABLE


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--models", "gan"], "--models gan: there are pca, vae, autoencoderkl, earteach"),
        (["--minutes", "0"], "--minutes 0.0: must be greater than 0"),
        (["--val", "a b=x.npy"], "write it as NAME=PATH"),
        (["--val", "drawn=x.npy"], "two arrays have one name"),
        (["--train", "missing.npy"], "missing.npy: no such file"),
    ],
)
def test_mistakes_are_said_in_a_line(
    ears: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], complaint: str
) -> None:
    assert main(arguments(ears, tmp_path / "out", *more)) == 1
    shown = capsys.readouterr().err.strip()
    assert complaint in shown
    assert shown.startswith("error: ")
    assert len(shown.splitlines()) == 1


def test_a_foreign_folder_is_left_alone(
    ears: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pca").mkdir()
    (tmp_path / "pca" / "thesis.txt").write_text("mine")
    assert main(arguments(ears, tmp_path, "--models", "pca")) == 1
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "pca" / "thesis.txt").read_text() == "mine"


def settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {"train": Path("t.npy"), "val": {"v": Path("v.npy")}, "minutes": 1}
    return Settings(**{**values, **changes})


def test_settings_survive_their_file(tmp_path: Path) -> None:
    before = settings(val={"a": Path("a.npy"), "b": Path("b.npy")}, earteach_options=("--x", "1"))
    before.save(tmp_path / "settings.json")
    assert Settings.load(tmp_path / "settings.json") == before


def test_due_times_end_with_the_time() -> None:
    due = due_times(settings(minutes=45, points=12))
    assert due[-1] == 45 * 60
    assert all(a < b for a, b in pairwise(due))
    assert due[0] < 70


def test_defaults_of_earteach_are_not_typed() -> None:
    words = train_command(settings(), Path("d"), 5)
    assert "--latent-dim" not in words
    assert "--batch-size" not in words
    assert words[words.index("--image-size") + 1] == "64"
    assert words[words.index("--val-data") + 1] == "v.npy"


def test_checkpoints_are_kept_once_for_each_due_time(tmp_path: Path) -> None:
    source = tmp_path / "last.ckpt"
    keeper = Keeper(source, tmp_path / "curve", [10, 20, 30])
    keeper.look()
    start = keeper.started

    def write(content: str, seconds: float) -> None:
        partial = tmp_path / "partial"
        partial.write_text(content)
        os.utime(partial, (start + seconds, start + seconds))
        partial.replace(source)

    for content, seconds in (("early", 5), ("a", 12), ("b", 15), ("c", 31)):
        write(content, seconds)
        keeper.look()
        keeper.look()
    write("end", 40)
    keeper.look(final=True)
    assert [kept.path.read_text() for kept in keeper.kept] == ["a", "c", "end"]
    assert [kept.seconds for kept in keeper.kept] == pytest.approx([12, 31, 40], abs=1e-3)


PEERS = [
    pytest.param(lambda: StandardVAE(64, 8, 32), id="vae"),
    pytest.param(lambda: KLAutoencoder(64, 4, 32), id="autoencoderkl", marks=needs_diffusers),
]


@pytest.mark.parametrize("ssim_weight", [0.0, 0.005])
@pytest.mark.parametrize("make", PEERS)
def test_a_peer_learns(make: Any, ssim_weight: float) -> None:
    """After some steps its codes tell images apart: it is better than their mean."""
    torch.manual_seed(0)
    model = make().train()
    recipe = peers.Recipe(model, learning_rate=3e-3, kld_weight=1e-6, ssim_weight=ssim_weight)
    x = torch.nn.functional.interpolate(torch.rand(4, 3, 2, 2), size=32, mode="bilinear")
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate)
    for _ in range(60):
        peers.step(recipe, optimizer, x, "32")
    with torch.no_grad():
        mu, logvar = model.encode(x)
        error = (model.decode(mu) - x).square().mean()
    assert mu.shape == logvar.shape == (4, 64)
    assert mu.dtype == torch.float32
    assert error < 0.7 * (x - x.mean(dim=0)).square().mean()


def test_the_standard_recipe_has_its_layers() -> None:
    """Parameters counted by hand: pairs of convolutions with BatchNorm, CBAM, dense bottleneck."""
    base, latent, flat = 8, 64, 64 * 2 * 2

    def cbam(c: int) -> int:
        hidden = max(4, c // 16)
        return c * hidden + hidden + hidden * c + c + 2 * 49 + 1

    def block(before: int, after: int) -> int:
        return 9 * before * after + after + 9 * after * after + after + 4 * after + cbam(after)

    pairs = [(3, 8), (8, 16), (16, 32), (32, 64), (64, 32), (32, 16), (16, 8), (8, 8)]
    dense = 2 * (flat * latent + latent) + latent * flat + flat
    expected = sum(block(*pair) for pair in pairs) + dense + 9 * base * 3 + 3
    model = StandardVAE(latent, base, 32)
    assert sum(p.numel() for p in model.parameters()) == expected
    assert [m.out_channels for m in model.modules() if isinstance(m, torch.nn.Conv2d)].count(1) == 8


@needs_diffusers
@pytest.mark.parametrize(
    ("size", "latent_dim", "shape"),
    [(64, 256, (4, 8, 8)), (128, 256, (4, 8, 8)), (64, 64, (1, 8, 8))],
)
def test_the_code_of_autoencoderkl_is_a_grid(
    size: int, latent_dim: int, shape: tuple[int, ...]
) -> None:
    model = KLAutoencoder(latent_dim, 8, size)
    assert model.code_shape == shape
    with torch.no_grad():
        mu, logvar = model.encode(torch.rand(2, 3, size, size))
        posterior = model.net.encode(torch.rand(2, 3, size, size)).latent_dist
        assert model.decode(mu).shape == (2, 3, size, size)
    assert tuple(posterior.mean.shape[1:]) == shape
    assert mu.shape == logvar.shape == (2, latent_dim)


@needs_diffusers
def test_autoencoderkl_sees_and_gives_the_range_of_its_kind() -> None:
    """It works in [−1, 1], the benchmark in [0, 1]."""
    model = KLAutoencoder(64, 4, 32).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = model.net(x * 2 - 1, sample_posterior=False).sample / 2 + 0.5
        torch.testing.assert_close(model.decode(model.encode(x)[0]), expected)


@needs_diffusers
@pytest.mark.parametrize(("latent_dim", "size"), [(100, 64), (64, 48)])
def test_sizes_without_a_grid_are_refused(latent_dim: int, size: int) -> None:
    with pytest.raises(EarTeachError, match="autoencoderkl needs"):
        KLAutoencoder(latent_dim, 8, size)


def test_the_average_follows_the_weights_and_the_statistics() -> None:
    source = StandardVAE(16, 4, 32)
    average = peers.WeightAverage(source)
    expected = {name: value.clone() for name, value in average.model.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    for steps in range(3):
        for value in source.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.randn(value.shape, generator=generator))
        average.update(steps)
        decay = min(0.995, (1 + steps) / (10 + steps))
        for name, value in source.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
    found = average.model.state_dict()
    assert any("running_mean" in name for name in found)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    assert not average.model.training


def test_the_learning_rate_warms_up_and_ends_at_zero() -> None:
    assert peers.schedule(0, 0) == pytest.approx(0.01)
    assert peers.schedule(49, 0) == pytest.approx(0.5)
    assert peers.schedule(1000, 0) == 1
    assert peers.schedule(0, 0.05) == pytest.approx(0.5, abs=0.01)
    assert peers.schedule(1000, 0.5) == pytest.approx(0.5)
    assert peers.schedule(1000, 1.2) == pytest.approx(0)


def test_peers_see_the_images_of_earteach(ears: Path) -> None:
    """Each epoch all images once, moved a little, mirrored at times, in a new order."""
    train = ears / "train_teacher.npy"
    batches = peers.training_batches(settings(train=train, image_size=32, workers=0, batch_size=41))
    first, second = next(batches), next(batches)
    assert first.shape == (41, 3, 32, 32)
    assert first.min() >= 0
    assert first.max() <= 1
    assert not torch.equal(first, second)
    stored = torch.from_numpy(np.load(train)).permute(0, 3, 1, 2).float() / 255

    def nearest(batch: torch.Tensor) -> tuple[set[int], int]:
        """The stored images that these are, and how many of them are mirrored."""
        plain = torch.cdist(batch.flatten(1), stored.flatten(1))
        mirror = torch.cdist(batch.flip(3).flatten(1), stored.flatten(1))
        rows = torch.minimum(plain, mirror).argmin(dim=1).tolist()
        return set(rows), int((mirror.amin(dim=1) < plain.amin(dim=1)).sum())

    for batch in (first, second):
        rows, turned = nearest(batch)
        assert len(rows) > 25
        assert 5 < turned < 36
