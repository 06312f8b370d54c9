"""The page of a run, read as a browser reads it and judged by what the run itself has kept."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

import earteach
from earteach.charts import number
from earteach.errors import EarTeachError
from earteach.inference.evaluate import evaluate
from earteach.inference.latent_traversal import traverse
from earteach.inference.report import Report, report
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


class Made(NamedTuple):
    result: Report
    html: str
    page: Page


def make(path: Path, **options) -> Made:
    result = report(path, **options)
    html = result.path.read_text()
    return Made(result, html, Page(html))


@pytest.fixture(scope="module")
def made(trained: Run, tmp_path_factory) -> Made:
    """The page of the run, beside a copy of its checkpoint."""
    folder = tmp_path_factory.mktemp("report")
    path = Path(shutil.copy(trained.last, folder))
    return make(path)


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
    names_only = re.sub(r'xmlns(:xlink)?="[^"]+"|data:image/png;base64,[^"]+', "", made.html)
    for outside in ("http:", "https:", "@import", "//"):
        assert outside not in names_only
    assert set(re.findall(r"url\((.)", made.html)) == {"#"}
    assert {"name": "generator", "content": "earteach"} in made.page.all("meta")
    assert "prefers-color-scheme: dark" in made.html
    assert all(img["alt"] for img in made.page.all("img"))
    assert made.result.missing == {}
    assert made.result.path == made.result.checkpoint.with_name("report.html")
    assert made.result.bytes == made.result.path.stat().st_size < 1e6


def test_the_numbers_are_those_of_eval(made, trained):
    seen = evaluate(trained.last)
    pca, mean, over = seen.baselines.pca, seen.baselines.mean_image, seen.over_pca["psnr"]
    text = made.page.text
    rows = ((seen.metrics, seen.intervals), (pca, pca.intervals), (mean, mean.intervals))
    for score, between in rows:
        (low, high), (bottom, top) = between["psnr"], between["ssim"]
        assert f" {score.psnr:.2f} dB {low:.2f} to {high:.2f} " in text
        assert f" {score.ssim:.4f} {bottom:.4f} to {top:.4f} " in text
    assert f"this model over PCA {over.difference:+.2f} dB {over.low:+.2f} to " in text
    assert (
        f"{seen.metrics.active_units} of 16 units are active; the KLD is {seen.metrics.kld:.1f}"
        in text
    )
    assert (
        f"{seen.metrics.psnr:.2f} dB PSNR and {seen.metrics.ssim:.4f} SSIM on {seen.images} val"
        in text
    )
    assert f"PCA with 16 components has {pca.psnr:.2f} dB PSNR and {pca.ssim:.4f} SSIM." in text
    for found in seen.advice:
        assert found.message in text
    assert (made.result.images, made.result.epochs) == (seen.images, 4)
    assert (made.result.psnr, made.result.ssim) == (seen.metrics.psnr, seen.metrics.ssim)


def test_the_curves_end_at_the_values_of_the_log(made, epochs):
    last = {**epochs[-1]["metrics"], "lr": epochs[-1]["learning_rate"]}
    drawings = re.findall(r'<figure class="chart".+?</figure>', made.html, re.DOTALL)
    curves = {
        "Loss": ("training", "train/loss"), "Reconstruction loss": ("validation", "val/recon_loss"),
        "PSNR": ("validation", "val/psnr"), "SSIM": ("training", "train/ssim"),
        "KLD, nats": ("validation", "val/kld"), "Active": ("validation", "val/active_units"),
        "Learning rate": ("at the end of the epoch", "lr"),
        "KLD weight": ("schedule", "train/kld_weight"),
    }  # fmt: skip
    assert len(drawings) == len(curves)
    for drawing, (title, (name, key)) in zip(drawings, curves.items(), strict=True):
        assert f'aria-label="{title}' in drawing
        assert f"{name} {number(last[key])}" in drawing


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
        facts = dict(zip(cells[1:9:2], cells[2:9:2], strict=True))
        assert facts["images"] == str(len(array))
        assert facts["size"] == "32×32, 3 channels"
        assert facts["state"] == "as in training"


def squares(sheet: np.ndarray, count: int) -> list[np.ndarray]:
    """The squares of a strip, on white."""
    assert sheet.shape == (38, count * 35 + 3, 3)
    return [sheet[3:35, start : start + 32].astype(int) for start in range(3, count * 35, 35)]


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
            assert np.array_equal(sheet[3:35, 3:35], np.asarray(png))
    assert drawn.drawn_from in made.page.text
    assert f"for validation images it is {drawn.validation_distance:.3f}" in made.page.text


def test_the_networks_directions_are_those_of_traverse(made, tmp_path):
    walked = traverse(made.result.checkpoint, tmp_path, 6)
    shown = made.page.pictures("Network direction ")
    assert len(shown) == 6
    ears = [square for strip in shown for square in squares(strip, 7)]
    for path, ear in zip(walked.images, ears, strict=True):
        with Image.open(path) as png:
            assert np.array_equal(ear, np.asarray(png))
    for place, direction in enumerate(walked.directions, start=1):
        assert f"Network direction {place}: {100 * direction.share:.1f} %" in made.page.text


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
    out = tmp_path / "page.html"
    out.write_text(made.html + "<!-- an older one -->")
    assert make(made.result.checkpoint, out=out).html == made.html
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.slow
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
    assert found.page.text.count(f"the validation images, {EVIL}/val_data, are gone") == 2
    assert "bold</b>&amp;/last.ckpt" in found.page.text
    assert f"{EVIL}/log_dir/ear_vae/metrics.jsonl: is missing" in found.page.text
    assert set(found.result.missing) == {"quality", "reconstructions", "curves", "directions"}
    last = epochs[-1]["metrics"]
    assert (
        f"{last['val/psnr']:.2f} dB PSNR and {last['val/ssim']:.4f} SSIM in training."
        in found.page.text
    )
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


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_the_animation_has_a_frame_for_each_epoch(made, tmp_path, suffix, monkeypatch):
    monkeypatch.setattr("earteach.inference.report._page", lambda *_: (None, b""))
    path = tmp_path / f"epochs.{suffix}"
    for _ in range(2):  # its own is replaced
        result = report(made.result.checkpoint, out=tmp_path / "page.html", gif=path).gif
        (tmp_path / "page.html").unlink()
    assert result.bytes == path.stat().st_size
    with Image.open(path) as moving:
        frames = [
            np.asarray(each.convert("RGB")).astype(int) for each in ImageSequence.all_frames(moving)
        ]
    assert result.frames == len(frames) == 4
    # The inputs stay, and the reconstructions change.
    first, last = frames[0][28:60], frames[-1][28:60]
    assert np.abs(first - last)[2:30, 6:34].mean() < 3
    assert np.abs(first - last)[2:30, 40:70].mean() > 0.3
