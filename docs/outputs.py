"""The commands in the README and the docs, and the output that the pages show below them.

    python -m docs.outputs    # run the commands and paste their output, in about 5 minutes

A ```text block directly below a ```bash block shows what that block prints. A line `…` stands for
lines that are left out: as many lines before and after it are pasted as the page shows now.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from earteach.synthetic.drawn_ear import draw_ear

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README, TUTORIAL = ROOT / "README.md", DOCS / "tutorial.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
BASH = re.compile(r"```bash\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
OMITTED = "…"
OF_THIS_CPU = "note: --precision bf16 would be"  # a reader's CPU may have bf16
# Commands that no test runs, as words that follow each other, and the reason.
NOT_RUN = {
    ("make",): "runs what other tests run",
    ("tensorboard",): "serves until it is stopped",
    ("torchrun",): "needs two machines",
    ("srun",): "needs SLURM",
    ("--devices", "4"): "needs four devices",
    ("--accelerator", "gpu"): "needs a GPU",
    ("--check",): "needs 100 validation images",
    ("sharpen",): "takes minutes; its own tests run it",
}
PEOPLE = 24


def commands(block: str) -> list[list[str]]:
    """The commands of a shell block as words, without comments and continuations."""
    lines = (shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines())
    return [line for line in lines if line]


def page_commands(page: Path) -> list[list[str]]:
    blocks = BASH.findall(page.read_text(encoding="utf-8"))
    return [command for block, _ in blocks for command in commands(block)]


def contains(command: list[str], words: tuple[str, ...]) -> bool:
    return any(tuple(command[i : i + len(words)]) == words for i in range(len(command)))


def can_run(command: list[str]) -> bool:
    return not any(contains(command, words) for words in NOT_RUN)


def output(block: str, folder: Path) -> str:
    """What the block's commands print in an 80-column terminal; raises if one of them fails."""
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    printed = ""
    for command in filter(can_run, commands(block)):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{shlex.join(command)}\n{done.stdout}")
        lines = [line.rstrip() for line in done.stdout.splitlines()]
        printed += "".join(f"{line}\n" for line in lines if not line.startswith(OF_THIS_CPU))
    return printed


def abridged(printed: str, shown: str) -> str:
    """The printed lines, with lines left out where the page leaves some out."""
    lines, pattern = printed.splitlines(), shown.splitlines()
    if OMITTED not in pattern:
        return printed
    head = pattern.index(OMITTED)
    tail = len(lines) - (len(pattern) - head - 1)
    return "\n".join([*lines[:head], OMITTED, *lines[tail:]]) + "\n"


def with_output(page: Path, folder: Path, *, only_shown: bool = False) -> str:
    """The page's text with its blocks run in the folder, or only those whose output it shows."""

    def pasted(block: re.Match[str]) -> str:
        code, shown = block[1], block[2]
        if shown is None and only_shown:
            return block[0]
        printed = output(code, folder)
        if shown is None:
            return block[0]
        return f"```bash\n{code}```\n\n```text\n{abridged(printed, shown)}```"

    return BASH.sub(pasted, page.read_text(encoding="utf-8"))


def write_photographs(folder: Path) -> None:
    """Two synthetic photographs of each person, with boxes, sides and landmarks of their ears."""
    boxes, points = ["path,side,x,y,w,h"], ["path," + ",".join(f"x{k},y{k}" for k in range(55))]
    images, annotations = [], []
    for number in range(2 * PEOPLE):
        person, side = divmod(number, 2)
        ear = draw_ear(7, number, 64)
        name = f"p{person:02d}/{person:03d}_{'right' if side else 'left'}.jpg"
        (folder / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(ear.image).save(folder / "photos" / name)
        low, high = ear.landmarks.min(axis=0) * 64, ear.landmarks.max(axis=0) * 64
        box = [*map(float, low), *map(float, high - low)]
        boxes.append(",".join([name, name[7:-4], *map(str, box)]))
        points.append(",".join([name, *map(str, ear.landmarks.ravel().clip(-2, 2))]))
        images.append({"id": number, "file_name": name, "width": 64, "height": 64})
        annotations.append({"image_id": number, "bbox": box, "category_id": 1})
    (folder / "boxes.csv").write_text("\n".join(boxes))
    (folder / "points.csv").write_text("\n".join(points))
    (folder / "ten.csv").write_text("\n".join(points[:11]))
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "ear"}]}
    (folder / "instances.json").write_text(json.dumps(coco))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        first, base = Path(name, "readme"), Path(name, "tutorial")
        first.mkdir(), base.mkdir()
        README.write_text(with_output(README, first), encoding="utf-8")
        TUTORIAL.write_text(with_output(TUTORIAL, base), encoding="utf-8")
        write_photographs(base)
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            if page in (README, TUTORIAL) or not any(shown for _, shown in BASH.findall(text)):
                continue
            folder = shutil.copytree(base, Path(name, page.stem))
            page.write_text(with_output(page, folder, only_shown=True), encoding="utf-8")


if __name__ == "__main__":
    main()
