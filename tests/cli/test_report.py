"""`earteach report`: what it prints, and how its page looks in a browser."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser import browse
from tests.conftest import Run, earteach


@pytest.fixture(scope="module")
def place(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run's best checkpoint in `checkpoints`."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "checkpoints").mkdir()
    shutil.copy(trained.result["best"]["loss"]["path"], folder / "checkpoints")
    return folder


@pytest.fixture(scope="module")
def page(place: Path) -> Path:
    """The run's page, and a picture of its epochs beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        result = earteach("report", "--gif", "epochs.gif", "--json")
    assert result.code == 0, result.err
    found = result.json
    assert Path(found["checkpoint"]).parent == Path("checkpoints")
    assert found["path"] == "checkpoints/report.html"
    assert (found["epochs"], found["gif"]["path"], found["gif"]["frames"]) == (4, "epochs.gif", 4)
    assert found["bytes"] == (place / "checkpoints" / "report.html").stat().st_size
    assert found["missing"] == {}
    return place / "checkpoints" / "report.html"


def test_the_table_says_what_was_written(
    page: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "80")
    result = earteach("report", "checkpoints", "--out", "page.html", "--gif", "epochs.webp")
    assert result.code == 0, result.err
    assert max(map(len, result.out.splitlines())) <= 80
    assert re.search(r"page +│ page\.html \(\d+ kB|page +│ page\.html \(\d\.\d MB\)", result.out)
    assert re.search(r"animation +│ epochs\.webp \(4 frames, \d+ kB\)", result.out)
    assert re.search(r"quality +│ \d+\.\d\d dB, SSIM 0\.\d{4}", result.out)
    assert "4 epochs" in result.out


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        ([], "checkpoints: no such checkpoint; `earteach train` writes one"),
        (["none.ckpt"], "none.ckpt: no such checkpoint"),
        (["text.html"], "text.html: is cut short or not a checkpoint"),
        (["empty"], "empty: holds no best-epoch="),
        (["best.ckpt", "--out", "text.html"], "--out text.html: exists and was not written by"),
        (["best.ckpt", "--out", "empty"], "--out empty: is a folder; name a file"),
        (["best.ckpt", "--out", "/proc/x.html"], "--out /proc/x.html: cannot be written"),
        (["best.ckpt", "--out", "text.html/x.html"], "text.html: is a file; name a folder"),
        (["best.ckpt", "--gif", "empty.gif"], "--gif empty.gif: is a folder; name a file"),
        (["best.ckpt", "--gif", "x.png"], "--gif x.png: must end in .gif or .webp"),
        (["best.ckpt", "--gif", "text.gif"], "--gif text.gif: exists and was not written by"),
    ],
)
def test_bad_input_is_one_line(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], wanted: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "empty.gif"):
        Path(name).mkdir()
    monkeypatch.setattr("earteach.inference.report._page", pytest.fail)
    for name in ("text.html", "text.gif"):
        Path(name).write_text("<title>mine</title>")
    (best,) = (place / "checkpoints").glob("*.ckpt")
    shutil.copy(best, "best.ckpt")
    result = earteach("report", *args)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"error: {wanted}")
    assert result.err.count("\n") == 1
    assert Path("text.html").read_text() == "<title>mine</title>"


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_in_a_browser(
    browser: str, page: Path, tmp_path: Path, width: int, dark: bool
) -> None:
    shot = tmp_path / "shot.png"
    browse(browser, tmp_path, width, dark, f"--screenshot={shot}", page.as_uri())
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("L")).astype(int)
    assert pixels.shape == (4000, width)
    paper = int(pixels[2, 2])
    assert paper < 40 if dark else paper > 215
    drawn = np.abs(pixels - paper) > 30
    assert drawn.mean() > 0.03
    assert not drawn[:, :8].any()
    assert not drawn[:, -8:].any()
