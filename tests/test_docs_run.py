"""Every command and every Python block in the docs runs, on drawn ears and at a small size."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from earteach.synthetic.drawn_ear import draw_ear
from tests.conftest import TINY, earteach
from tests.test_docs import DOCS, PAGES, ROOT, typed

pytestmark = pytest.mark.slow
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)

# What is typed after a command to make it short; the last of two options counts.
SHORTER = {
    "prepare": ["--image-size", 32],
    "inspect-data": ["--image-size", 32],
    "train": [*TINY, "--epochs", 1, "--num-workers", 0, "--fresh"],
    "distil": ["--epochs", 1, "--num-workers", 0],
}
# What no test types, and why: words that follow each other in a line.
NOT_RUN = {
    ("make", "demo"): "is what a user does by hand",
    ("make", "test"): "is what runs the tests",
    ("tensorboard",): "serves until it is stopped; tests/training/test_tensorboard.py looks at it",
    ("torchrun",): "needs two machines",
    ("srun",): "needs SLURM",
    ("--devices", "4"): "needs four devices",
    ("--accelerator", "gpu"): "needs a GPU",
    ("-m", "benchmarks.quality"): "takes hours; tests/benchmarks runs it small",
    ("docs/examples/landmarker.py",): "is run by tests/test_docs.py",
}
# What Python blocks take for granted.
GIVEN = "import torch\nimages = torch.rand(2, 3, 32, 32)\n"
PEOPLE = 24


def _photographs(folder: Path) -> None:
    """Two photographs of each person, with boxes, sides and landmarks of the ears in them."""
    boxes, points = ["path,side,x,y,w,h"], ["path," + ",".join(f"x{k},y{k}" for k in range(55))]
    images, annotations = [], []
    for number in range(2 * PEOPLE):
        person, side = divmod(number, 2)
        ear = draw_ear(7, number, 64)
        name = f"p{person:02d}/{person:03d}_{'right' if side else 'left'}.jpg"
        (folder / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(ear.image).save(folder / "photos" / name)
        (left, top), (right, bottom) = (
            ear.landmarks.min(axis=0) * 64,
            ear.landmarks.max(axis=0) * 64,
        )
        box = [float(left), float(top), float(right - left), float(bottom - top)]
        boxes.append(",".join([name, name[7:-4], *map(str, box)]))
        points.append(",".join([name, *map(str, ear.landmarks.ravel().clip(-2, 2))]))
        images.append({"id": number, "file_name": name, "width": 64, "height": 64})
        annotations.append({"image_id": number, "bbox": box, "category_id": 1})
    (folder / "boxes.csv").write_text("\n".join(boxes))
    (folder / "points.csv").write_text("\n".join(points))
    old = {"image_paths": [image["file_name"] for image in images],
           "bboxes": [annotation["bbox"] for annotation in annotations]}  # fmt: skip
    (folder / "old.pkl").write_bytes(pickle.dumps(old))
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "ear"}]}
    (folder / "instances.json").write_text(json.dumps(coco))


def _arrays_with_labels(folder: Path) -> None:
    """`ears.npy` of the photographs, and `ami.npy` with landmarks and people in files of their own."""
    typed = [
        "prepare",
        "photos",
        "--image-size",
        32,
        "--val-groups",
        "^p00",
        "--group-by",
        "folder",
    ]
    assert earteach(*typed, "--out", "labelled").code == 0
    for name in ("manifest.csv", "teacher.npy"):
        target = "ears.npy" if name == "teacher.npy" else f"ears_{name}"
        shutil.copy(folder / "labelled" / f"train_{name}", folder / target)
    ears = np.load(folder / "ears.npy")
    np.save(folder / "ami.npy", ears)
    np.save(folder / "points.npy", np.random.default_rng(0).random((len(ears), 55, 2)))
    people = [f"q{row // 2}" for row in range(len(ears))]
    (folder / "who.csv").write_text("\n".join(["group", *people]))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that the docs take to be there."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert earteach("prepare", "--synthetic", 200, "--image-size", 32).code == 0
        assert earteach("train", *TINY, "--num-workers", 0, "--epochs", 2).code == 0
        _photographs(folder)
        _arrays_with_labels(folder)
    shutil.copytree(folder / "checkpoints", folder / "other" / "checkpoints")
    shutil.copy(folder / "checkpoints" / "last.ckpt", folder / "CKPT")
    shutil.copy(folder / "data" / "preprocessed" / "train_teacher.npy", folder / "more.npy")
    shutil.copy(folder / "photos" / "p00" / "000_left.jpg", folder / "a.jpg")
    shown = re.search(
        r"```toml\n(.*?)```", (DOCS / "guides" / "training.md").read_text(), re.DOTALL
    )
    assert shown is not None
    (folder / "ears.toml").write_text(shown[1])
    return folder


def _holds(line: list[str], words: tuple[str, ...]) -> bool:
    return any(tuple(line[at : at + len(words)]) == words for at in range(len(line)))


def _is_run(line: list[str]) -> bool:
    return not any(_holds(line, words) for words in NOT_RUN)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_runs_from_top_to_bottom(
    page: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(workspace, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for line in filter(_is_run, typed(page)):
        assert line[0] == "earteach", f"{' '.join(line)}: run it, or say in NOT_RUN why not"
        result = earteach(*line[1:], *SHORTER.get(line[1], []))
        assert result.code == 0, f"{' '.join(line)}: {result.err}"
    for block in PYTHON.findall(page.read_text(encoding="utf-8")):
        ran = subprocess.run([sys.executable, "-c", GIVEN + block], capture_output=True, text=True)
        assert ran.returncode == 0, f"{block}\n{ran.stderr}"


NUMBER = re.compile(r"\d+(?:[.,:]\d+)*(?:e-\d+)?")
DURATION = re.compile(r"(?:# (?:h|min) )?# (?:min|s)\b")


def shape(line: str) -> str:
    """A line without its numbers, which other machines change, and the widths that follow from them."""
    told = DURATION.sub("#", NUMBER.sub("#", line))
    return re.sub(r"([ ─])\1+", r"\1", told).strip()


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", DOCS / "tutorial.md"], ids=["README", "tutorial"]
)
@pytest.mark.timeout(1800)
def test_what_is_shown_is_what_is_printed(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a newcomer types it, in an empty folder and a terminal of 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    printed: list[str] = []
    for line in filter(_is_run, typed(page)):
        command = [sys.executable, "-m", *line]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, f"{' '.join(line)}: {ran.stderr}"
        printed += [shape(seen) for seen in (ran.stderr + ran.stdout).splitlines()]
    shown = re.findall(r"^```(?:text)?\n(.*?)^```$", _without_code(page), re.DOTALL | re.MULTILINE)
    lines = [line for block in shown for line in block.splitlines() if line.strip()]
    assert len(lines) > 15
    assert [line for line in lines if shape(line) not in printed] == []


def _without_code(page: Path) -> str:
    """The page without blocks of code, so that every fence left is of what is printed."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^```(?!text)\w+\n.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def test_what_is_not_run_is_in_the_docs() -> None:
    lines = [line for page in PAGES for line in typed(page)]
    assert [words for words in NOT_RUN if not any(_holds(line, words) for line in lines)] == []
