"""The page of a run, read as a browser reads it and judged by what the run itself has kept."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import earteach
from earteach.errors import EarTeachError
from earteach.inference.animation import animate, check_animation
from earteach.inference.evaluate import evaluate
from earteach.inference.latent_traversal import traverse
from earteach.inference.report import Report, report
from earteach.inference.run_record import EpochMetrics
from earteach.inference.sample import sample
from tests.conftest import Run

VOID = {"meta", "img", "br"}
SECTIONS = {
    "quality", "advice", "curves", "reconstructions", "samples", "directions", "configuration", "data"
}  # fmt: skip


class Page(HTMLParser):
    """Tags with their attributes, the text, and the tables' cells; every tag must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open:
            self.words.append(data)
        if {"td", "th"} & set(self._open):
            self.cells[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def pictures(self, start: str) -> list[np.ndarray]:
        """The pictures whose description begins so, as pixels."""
        found = [img["src"] for img in self.all("img") if img["alt"].startswith(start)]
        return [
            np.asarray(Image.open(io.BytesIO(base64.b64decode(src.partition("base64,")[2]))))
            for src in found
        ]


@dataclass
class Made:
    result: Report
    html: str
    page: Page = field(init=False)

    def __post_init__(self) -> None:
        self.page = Page(self.html)


def make(path: Path, **options) -> Made:
    result = report(path, **options)
    return Made(result, result.path.read_text())


@pytest.fixture(scope="module")
def made(trained: Run, tmp_path_factory) -> Made:
    """The page of the run, beside a copy of its checkpoint, with an animation."""
    folder = tmp_path_factory.mktemp("report")
    path = Path(shutil.copy(trained.last, folder))
    return make(path, gif=folder / "epochs.gif")


@pytest.fixture(scope="module")
def epochs(trained: Run) -> list[dict]:
    lines = (trained.logs / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def altered(path: Path, folder: Path, **options: str) -> Path:
    """A copy of the checkpoint whose configuration names other data or logs."""
    state = torch.load(path, weights_only=True)
    for group in state["earteach"]["config"].values():
        group.update({name: value for name, value in options.items() if name in group})
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "last.ckpt")
    return folder / "last.ckpt"


def test_the_page_is_whole_and_asks_for_nothing(made):
    assert made.html.startswith("<!doctype html>")
    assert {attrs.get("id") for attrs in made.page.all("section")} == SECTIONS
    assert {attrs["href"] for attrs in made.page.all("a")} == {f"#{name}" for name in SECTIONS}
    names = {name for name, _ in made.page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for _, attrs in made.page.tags:
        assert not [name for name in attrs if name.startswith("on")]
        assert attrs.get("src") is None or attrs["src"].startswith("data:image/png;base64,")
    for outside in ("http:", "https:", "url(", "@import", "//"):
        text = made.html if outside != "//" else made.html.replace("base64,//", "")
        assert outside not in "".join(p for p in text.split('"') if not p.startswith("data:"))
    assert {"name": "generator", "content": "earteach"} in made.page.all("meta")
    assert "prefers-color-scheme: dark" in made.html
    assert all(img["alt"] for img in made.page.all("img"))
    assert made.result.missing == {}
    assert made.result.path == made.result.checkpoint.with_name("report.html")
    assert made.result.bytes == made.result.path.stat().st_size < 1e6


def test_the_numbers_are_those_of_eval(made, trained):
    seen = evaluate(trained.last)
    pca, mean, over = seen.baselines.pca, seen.baselines.mean_image, seen.over_pca
    text = made.page.text
    rows = ((seen.metrics, seen.intervals), (pca, pca.intervals), (mean, mean.intervals))
    for score, between in rows:
        (low, high), (bottom, top) = between.psnr, between.ssim
        assert f" {score.psnr:.2f} dB {low:.2f} to {high:.2f} " in text
        assert f" {score.ssim:.4f} {bottom:.4f} to {top:.4f} " in text
    assert f"this network over PCA {over.psnr.difference:+.2f} dB {over.psnr.low:+.2f} to " in text
    assert (
        f"{seen.metrics.active_units} of 16 units are active; the KLD is {seen.metrics.kld:.1f}"
        in text
    )
    assert (
        f"{seen.metrics.psnr:.2f} dB PSNR and {seen.metrics.ssim:.4f} SSIM on {seen.images} val"
        in text
    )
    assert f"PCA with 16 components has {pca.psnr:.2f} dB and {pca.ssim:.4f}." in text
    for found in seen.advice:
        assert found.message in text
    assert (made.result.images, made.result.epochs) == (seen.images, 4)
    assert (made.result.psnr, made.result.ssim) == (seen.metrics.psnr, seen.metrics.ssim)


def test_the_epochs_are_those_of_the_log(made, epochs):
    cells = made.page.cells
    start = cells.index("learning rate") + 1
    for place, epoch in enumerate(epochs):
        m = epoch["metrics"]
        assert cells[start + 7 * place : start + 7 * place + 7] == [
            str(epoch["epoch"] + 1), f"{m['train/loss']:.6f}", f"{m['val/loss']:.6f}",
            f"{m['val/psnr']:.2f} dB", f"{m['val/ssim']:.4f}", f"{m['val/kld']:.1f} nats",
            f"{epoch['learning_rate']:.2e}",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("drawn", "curve"),
    [
        ("PSNR, dB", "val/psnr"), ("Weight of the KLD", "train/kld_weight"), ("Loss", "train/loss"),
        ("SSIM", "train/ssim"), ("KLD, nats", "train/kld"),
        ("Reconstruction loss, mean squared error", "train/recon_loss"),
    ],
)  # fmt: skip
def test_the_curves_rise_and_fall_as_the_log_does(made, epochs, drawn, curve):
    tags = made.page.tags
    chart = next(
        i for i, (_, a) in enumerate(tags) if a.get("aria-label") == f"{drawn} over epochs"
    )
    points = next(attrs["points"] for name, attrs in tags[chart:] if name == "polyline")
    heights = [-float(pair.split(",")[1]) for pair in points.split()]
    values = [epoch["metrics"][curve] for epoch in epochs]
    assert np.corrcoef(heights, values)[0, 1] > 0.999


def test_the_options_are_shown_and_those_that_differ(made, trained):
    cells = made.page.cells
    for flag, wanted in {
        "--image-size": "32 (256)", "--epochs": "4 (200)", "--seed": "42", "--pca-init": "yes",
        "--layout": "none", "--log-dir": str(trained.folder / "logs"),
    }.items():  # fmt: skip
        assert cells[cells.index(flag) + 1] == wanted


def test_the_data_are_described(made, ears):
    for name in ("train", "val"):
        array = np.load(ears / f"{name}_teacher.npy")
        cells = made.page.cells[made.page.cells.index(str(ears / f"{name}_teacher.npy"), 60) :]
        facts = dict(zip(cells[1:21:2], cells[2:21:2], strict=True))
        assert facts["images"] == str(len(array))
        assert facts["size"] == "32×32, 3 channels"
        assert facts["range"] == f"{array.min()} to {array.max()}"  # up to 64 images: all
        channels = array.reshape(-1, 3)
        assert facts["mean"] == ", ".join(f"{v:.1f}" for v in channels.mean(axis=0))
        assert facts["deviation"] == ", ".join(f"{v:.1f}" for v in channels.std(axis=0))
        assert facts["state"] == "as in training"
        assert facts["exact repeats"] == facts["constant"] == facts["NaN or infinite"] == "0"
    assert "Validation images that are in training: 0 exactly, 0 nearly." in made.page.text


def squares(sheet: np.ndarray, count: int) -> list[np.ndarray]:
    """The squares of a strip, whose gaps are transparent."""
    assert sheet.shape == (32, count * 35 - 3, 4)
    assert (sheet[..., 3] == 0).any(axis=0).sum() == 3 * (count - 1)
    return [sheet[:, start : start + 32, :3].astype(int) for start in range(0, count * 35, 35)]


def test_the_worst_and_the_best_are_shown(made, trained, ears):
    val = np.load(ears / "val_teacher.npy")
    images = torch.from_numpy(val.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    with torch.no_grad():
        seen = earteach.load(trained.last).reconstruct(images)
    psnr = -10 * (seen - images).square().mean(dim=(1, 2, 3)).log10().numpy()
    order = psnr.argsort()
    rows = [*order[:6], *order[::-1][:6]]
    strips = made.page.pictures("image ")
    assert len(strips) == len(rows) == 12
    for row, strip in zip(rows, strips, strict=True):
        given, reconstruction, _, _ = squares(strip, 4)
        assert np.array_equal(given, val[row])
        wanted = seen[row].permute(1, 2, 0).numpy() * 255
        assert np.abs(reconstruction - wanted).max() < 0.51
    for row in rows:
        assert f"image {row}: {psnr[row]:.2f} dB, " in made.page.text


def test_new_ears_are_those_of_sample(made, tmp_path):
    drawn = sample(made.result.checkpoint, tmp_path, number=16)
    shown = made.page.pictures("new ear ")
    assert len(shown) == 16
    for path, sheet in zip(drawn.images, shown, strict=True):
        with Image.open(path) as png:
            assert np.array_equal(sheet[:32], np.asarray(png))
    assert f"mixture of {drawn.components} Gaussians" in made.page.text
    assert f"validation images are at {drawn.validation_distance:.3f} from theirs" in made.page.text


def test_the_networks_directions_are_those_of_traverse(made, tmp_path):
    walked = traverse(made.result.checkpoint, tmp_path, 6)
    shown = made.page.pictures("The network's direction ")
    assert len(shown) == 6
    ears = [square for strip in shown for square in squares(strip, 7)]
    for path, ear in zip(walked.images, ears, strict=True):
        with Image.open(path) as png:
            assert np.array_equal(ear, np.asarray(png))
    for place, direction in enumerate(walked.directions, start=1):
        assert f"The network's direction {place}: {100 * direction.share:.1f} %" in made.page.text


def test_eigenears_are_principal_components_of_ears_and_their_mirrors(made, ears):
    train = np.load(ears / "train_teacher.npy") / 255
    flat = np.concatenate([train, train[:, :, ::-1]]).reshape(2 * len(train), -1)
    mean = flat.mean(axis=0)
    _, values, axes = np.linalg.svd(flat - mean, full_matrices=False)
    shown = made.page.pictures("Eigenear ")
    assert len(shown) == 6
    for place, strip in enumerate(shown[:3]):
        drawn = squares(strip, 7)
        deviation = values[place] / np.sqrt(len(flat) - 1)
        for sigma, square in zip(range(-3, 4), drawn, strict=True):
            either = [
                np.clip(mean + sign * sigma * deviation * axes[place], 0, 1) * 255
                for sign in (1, -1)
            ]
            apart = [np.abs(square.ravel() - wanted).max() for wanted in either]
            assert min(apart) < 1, (place, sigma)


def test_the_same_run_gives_the_same_page_and_its_own_is_replaced(made, tmp_path):
    out = tmp_path / "new" / "page.html"
    first = make(made.result.checkpoint, out=out)
    assert first.html == made.html
    out.write_text(made.html + "<!-- an older one -->")
    again = make(made.result.checkpoint, out=out, seed=7)
    assert "with seed 7" in again.page.text
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


def test_few_images_of_a_large_array_are_measured(made, ears, tmp_path, monkeypatch):
    monkeypatch.setattr("earteach.inference.report.MAX_IMAGES", 3)
    found = make(made.result.checkpoint, out=tmp_path / "page.html")
    whole = evaluate(made.result.checkpoint, out=tmp_path)
    table = np.genfromtxt(whole.files.per_image, delimiter=",", names=True)
    rows = np.linspace(0, len(table) - 1, 3).round().astype(int)
    assert found.result.images == 3
    assert found.result.psnr == pytest.approx(table["psnr"][rows].mean(), abs=1e-5)
    assert f"{table['pca_psnr'][rows].mean():.2f} dB" in found.page.text
    assert f"3 of {len(table)} evenly spread images" in found.page.text
    shown = [int(row) for row in re.findall(r"image (\d+): ", found.page.text)]
    assert set(shown) == set(rows)
    val = np.load(ears / "val_teacher.npy")
    for row, strip in zip(shown, found.page.pictures("image "), strict=True):
        assert np.array_equal(squares(strip, 4)[0], val[row])


EVIL = "<script>alert('&\"')</script>"


def test_names_are_escaped_and_what_is_gone_is_said(trained, tmp_path, epochs):
    """All at once: no array, no log, and names that are markup."""
    gone = {name: f"{EVIL}/{name}" for name in ("train_data", "val_data", "log_dir")}
    gone["strategy"] = EVIL
    path = altered(trained.last, tmp_path / "<b>bold</b>&amp;", **gone)
    found = make(path, out=tmp_path / "page.html")
    names = {name for name, _ in found.page.tags}
    assert "script" not in names
    assert found.page.text.count(f"the validation images, {EVIL}/val_data, are gone") == 3
    assert "bold</b>&amp;/last.ckpt" in found.page.text
    assert f"{EVIL}/log_dir/ear_vae/metrics.jsonl: is gone" in found.page.text
    assert set(found.result.missing) == {
        "quality", "advice", "reconstructions", "curves", "directions"
    }  # fmt: skip
    last = epochs[-1]["metrics"]
    assert (
        f"{last['val/psnr']:.2f} dB PSNR and {last['val/ssim']:.4f} SSIM when it was"
        in found.page.text
    )
    # The checkpoint itself keeps the losses.
    assert [f"{e['metrics']['val/loss']:.6f}" for e in epochs] == [
        cell for cell in found.page.cells if len(cell) == 8 and cell.startswith("0.")
    ]
    assert "Drawn from the prior, with seed 42." in found.page.text
    assert (found.result.images, found.result.psnr) == (0, None)
    assert len(found.page.pictures("new ear ")) == 16


def test_another_runs_log_is_not_taken(trained, tmp_path):
    logs = tmp_path / "logs" / "ear_vae"
    logs.mkdir(parents=True)
    text = (trained.logs / "metrics.jsonl").read_text()
    (logs / "metrics.jsonl").write_text(text.replace('"val/loss": 0.0', '"val/loss": 0.1'))
    path = altered(trained.last, tmp_path, log_dir=str(tmp_path / "logs"))
    with pytest.raises(EarTeachError, match="ear_vae: holds another run; leave out --gif"):
        report(path, gif=tmp_path / "x.gif")
    # A line that a kill cut short is no other run.
    (logs / "metrics.jsonl").write_text(text + '{"epoch": 4, "ep')
    with pytest.raises(EarTeachError, match="hold no val/reconstructions; leave out --gif"):
        report(path, gif=tmp_path / "x.gif")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.ckpt", "logs"]


def frames(path: Path) -> list[np.ndarray]:
    found = []
    with Image.open(path) as moving:
        for place in range(moving.n_frames):
            moving.seek(place)
            found.append(np.asarray(moving.convert("RGB")).astype(int))
    return found


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_the_animation_has_a_frame_for_each_epoch(made, trained, tmp_path, suffix, monkeypatch):
    if suffix == "gif":
        moving = made.result.gif
    else:
        monkeypatch.setattr("earteach.inference.report._values", lambda *_: (None, {}))
        monkeypatch.setattr("earteach.inference.report.render", lambda _: b"")
        path = tmp_path / "epochs.webp"
        for _ in range(2):  # its own is replaced
            moving = report(made.result.checkpoint, out=tmp_path / "p.html", gif=path).gif
            (tmp_path / "p.html").unlink()
    assert moving.bytes == moving.path.stat().st_size
    seen = frames(moving.path)
    assert moving.frames == len(seen) == 4
    # The label grows a bar from frame to frame, and the last one is as wide as the picture.
    blue = [int((np.abs(frame[24] - [31, 95, 168]).max(axis=1) < 40).sum()) for frame in seen]
    width = seen[0].shape[1]
    assert blue == pytest.approx([width / 4, width / 2, 3 * width / 4, width], abs=8)
    # The inputs stay, the reconstructions change.
    first, last = seen[0][28:60], seen[-1][28:60]
    assert np.abs(first - last)[2:30, 6:34].mean() < 3
    assert np.abs(first - last)[2:30, 40:70].mean() > 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"out": "mine.html"},
            "--out .*mine.html: exists and was not written by `earteach report`",
        ),
        ({"out": "folder"}, "--out .*folder: is a folder; name a file"),
        ({"out": "mine.html/below.html"}, "mine.html: is a file; name a folder"),
        ({"gif": "mine.html"}, r"--gif .*mine.html: must end in .gif or .webp"),
        ({"gif": "mine.gif"}, "--gif .*mine.gif: exists and was not written by"),
        ({"gif": "folder.gif"}, "--gif .*folder.gif: is a folder; name a file"),
        ({"out": "/proc/x.html"}, "--out /proc/x.html: cannot be written"),
    ],
)
def test_what_is_in_the_way_is_said_before_the_work(made, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr("earteach.inference.report._page", pytest.fail)
    (tmp_path / "mine.html").write_text("<!doctype html><title>mine</title>")
    Image.new("RGB", (4, 4)).save(tmp_path / "mine.gif")
    for name in ("folder", "folder.gif"):
        (tmp_path / name).mkdir()
    paths = {"out": tmp_path / "page.html"} | {k: tmp_path / v for k, v in options.items()}
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(EarTeachError, match=message):
        report(made.result.checkpoint, **paths)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_bar_of_a_long_run_begins_with_a_pixel():
    file = io.BytesIO()
    Image.new("RGB", (100, 20)).save(file, "PNG")
    epoch = EpochMetrics(epoch=0, step=None, metrics={})
    data, frames = animate([(epoch, file.getvalue())], 5000, Path("x.gif"))
    assert (frames, Image.open(io.BytesIO(data)).size) == (1, (100, 46))


def test_a_foreign_png_called_gif_is_foreign(tmp_path):
    about = PngInfo()
    about.add_text("comment", "mine")
    Image.new("RGB", (4, 4)).save(tmp_path / "mine.gif", "PNG", pnginfo=about)
    with pytest.raises(EarTeachError, match="exists and was not written by"):
        check_animation(tmp_path / "mine.gif")
