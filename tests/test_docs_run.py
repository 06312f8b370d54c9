"""Every command and every Python block in the docs runs, on synthetic ears at a small size."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs import outputs
from tests.conftest import TINY, earteach
from tests.test_docs import example_config

pytestmark = pytest.mark.slow
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
# Appended to a command to make it quick; the last of two equal options counts.
QUICK = {
    "prepare": ["--image-size", 32],
    "inspect-data": ["--image-size", 32],
    "train": [*TINY, "--epochs", 1, "--num-workers", 0, "--fresh"],
    "distil": ["--epochs", 1, "--num-workers", 0],
    "landmarks --train": ["--steps", 2, "--no-drawn"],
}
# Names that Python blocks take for granted.
GIVEN = "import torch\nimages = torch.rand(2, 3, 32, 32)\n"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the docs assume: arrays, a trained model, photographs and labels."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        outputs.write_photographs(folder)
        split = ["--group-by", "folder", "--val-groups", "^p00", "--out", "labelled"]
        for command in (
            ["prepare", "photos", "--image-size", 32, *split],
            ["prepare", "--synthetic", 200, "--image-size", 32],
            ["train", *TINY, "--num-workers", 0, "--epochs", 2],
        ):
            assert earteach(*command).code == 0
    for source, target in (
        ("labelled/train_teacher.npy", "ears.npy"),
        ("labelled/train_manifest.csv", "ears_manifest.csv"),
        ("data/preprocessed/train_teacher.npy", "more.npy"),
        ("checkpoints/last.ckpt", "CKPT"),
        ("photos/p00/000_left.jpg", "a.jpg"),
    ):
        shutil.copy(folder / source, folder / target)
    shutil.copytree(folder / "checkpoints", folder / "other" / "checkpoints")
    (folder / "ears.toml").write_text(example_config())
    return folder


@pytest.mark.parametrize(
    "page", outputs.PAGES, ids=lambda page: str(page.relative_to(outputs.ROOT))
)
def test_a_page_runs_from_top_to_bottom(
    page: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shutil.copytree(workspace, tmp_path / "here"))
    for command in filter(outputs.can_run, outputs.page_commands(page)):
        assert command[0] == "earteach", f"{command}: run it, or give a reason in NOT_RUN"
        kind = f"{command[1]} --train" if "--train" in command else command[1]
        result = earteach(*command[1:], *QUICK.get(kind, []))
        assert result.code == 0, f"{' '.join(command)}: {result.err}"
    for block in PYTHON.findall(page.read_text(encoding="utf-8")):
        done = subprocess.run([sys.executable, "-c", GIVEN + block], capture_output=True, text=True)
        assert done.returncode == 0, f"{block}\n{done.stderr}"


NUMBER = re.compile(r"\d+(?:[.,:]\d+)*(?:e-\d+)?")
DURATION = re.compile(r"(?:# (?:h|min) )?# (?:min|s)\b")


def shape(line: str) -> str:
    """A line without its numbers, which differ between machines, and the widths they cause."""
    return re.sub(r"([ ─━])\1+", r"\1", DURATION.sub("#", NUMBER.sub("#", line))).strip()


@pytest.mark.outputs
@pytest.mark.parametrize("page", [outputs.README, outputs.TUTORIAL], ids=["README", "tutorial"])
@pytest.mark.timeout(1800)
def test_the_output_shown_is_the_output_printed(page: Path, tmp_path: Path) -> None:
    """As a newcomer types it, in an empty folder. `make outputs` pastes it anew."""
    pasted = outputs.with_output(page, tmp_path)
    for (_, shown), (_, printed) in zip(
        outputs.BASH.findall(page.read_text(encoding="utf-8")),
        outputs.BASH.findall(pasted),
        strict=True,
    ):
        expected = {shape(line) for line in printed.splitlines()}
        assert [line for line in shown.splitlines() if shape(line) not in expected] == []
