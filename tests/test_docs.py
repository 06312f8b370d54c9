"""What the README and the docs tell people to type works, and nothing generated is stale."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import tables
from docs.outputs import DOCS, PAGES, ROOT, page_commands
from tests.cli.test_help import COMMANDS
from tests.conftest import Run, earteach
from tests.scenes import scenes

TYPED = [
    (page.stem, shlex.join(command).split("earteach ", 1)[1])
    for page in PAGES
    for command in page_commands(page)
    if "earteach" in command
]


def example_config() -> str:
    """The options file that the training guide shows."""
    text = (DOCS / "guides" / "training.md").read_text(encoding="utf-8")
    return re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0]


@pytest.mark.parametrize(("page", "line"), TYPED)
def test_every_command_in_the_docs_parses(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--help` is answered only after all other options are accepted."""
    monkeypatch.chdir(tmp_path)
    Path("ears.toml").write_text(example_config())
    result = earteach(*shlex.split(line), "--help")
    assert result.code == 0, result.err


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_resolve(page: Path) -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [t for t in targets if not (page.parent / t).exists()] == []


def test_named_options_and_commands_exist() -> None:
    reference = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    options = set(re.findall(r"--[a-z][a-z0-9-]+", reference))
    options |= {"--version", "--peer-ssim-weight", "--lr-peak"}  # the changelog names --lr-peak
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"`(--[a-z][a-z0-9-]+)", text)) - options == set(), page.name
        assert set(re.findall(r"`earteach ([a-z][a-z-]*)", text)) <= set(COMMANDS), page.name


def test_the_command_reference_is_current(tmp_path: Path) -> None:
    path = tmp_path / "cli.md"
    command = [
        "-m", "typer", "earteach.cli.app", "utils", "docs",
        "--name", "earteach", "--title", "Command line", "--output", path,
    ]  # fmt: skip
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    assert path.read_text() == (DOCS / "reference" / "cli.md").read_text(), "run `make docs`"


def test_the_schedules_picture_is_current(tmp_path: Path) -> None:
    path = tmp_path / "schedules.svg"
    subprocess.run([sys.executable, DOCS / "schedules.py", path], check=True)
    assert path.read_text() == (DOCS / "images" / "schedules.svg").read_text(), "run `make docs`"


def test_the_tables_of_measurements_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main(["--check"]) == 0, capsys.readouterr().out


def test_every_diagnostic_is_in_the_guide() -> None:
    sources = [path.read_text(encoding="utf-8") for path in ROOT.glob("earteach/metrics/*.py")]
    codes = {code for text in sources for code in re.findall(r'Advice\(\s*"(\w+)"', text)}
    guide = (DOCS / "guides" / "evaluating.md").read_text(encoding="utf-8")
    assert codes
    assert codes <= set(re.findall(r"^\| `(\w+)`", guide, re.MULTILINE))


@pytest.mark.parametrize(
    ("names", "version", "shown"),
    [
        (["python3"], "3.12", "python3 -m venv"),
        (["python"], "3.11", "python -m venv"),
        (["python3"], "3.10", "needs Python 3.11 or newer; found python3 (Python 3.10.0)"),
        ([], "", "found no Python at all"),
    ],
)
def test_make_finds_a_new_enough_python(
    names: list[str], version: str, shown: str, tmp_path: Path
) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not on the PATH")
    code = 'case "$2" in *version_info*) exit %d;; esac; [ "$1" != --version ] || echo \'%s\''
    for name in names:
        script = code % (version < "3.11", f"Python {version}.0")
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [make, "-n", "install", "VENV=absent"], cwd=ROOT, env={"PATH": str(tmp_path)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert shown in done.stdout


@pytest.mark.slow
def test_the_detector_example_learns(trained: Run, tmp_path: Path) -> None:
    folder, boxes = scenes(tmp_path, 15)
    done = subprocess.run(
        [
            *(sys.executable, ROOT / "docs" / "examples" / "detector.py", trained.checkpoints),
            *("--photographs", folder, "--boxes", boxes, "--out", tmp_path / "out"),
            *("--steps", "45", "--every", "45"),
            *("--starts", "teacher"),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "12 photographs to train on, 3 to test" in done.stdout
    name, _, step, ap50, _ = done.stdout.splitlines()[-1].split()
    assert (name, step) == ("teacher", "45")
    assert float(ap50) > 50
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"teacher.pt", "teacher.png"}
