"""What the README and the docs tell people to type is true."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_help import COMMANDS
from tests.conftest import Run, earteach

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)


def typed(page: Path) -> list[list[str]]:
    """The lines of a page's shell blocks, comments and continuations resolved."""
    text = "\n".join(BLOCK.findall(page.read_text(encoding="utf-8"))).replace("\\\n", " ")
    lines = (shlex.split(line, comments=True) for line in text.splitlines())
    return [line for line in lines if line]


def commands(page: Path) -> list[str]:
    """The `earteach` commands in a page's shell blocks."""
    lines = [shlex.join(line) for line in typed(page)]
    return [line.split("earteach ", 1)[1] for line in lines if "earteach " in line]


TYPED = [(page.name, line) for page in PAGES for line in commands(page)]


def test_there_are_commands() -> None:
    assert len(TYPED) > 15


@pytest.mark.parametrize(("page", "line"), TYPED)
def test_every_documented_command_can_be_typed(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown command or option is refused before `--help` is answered."""
    monkeypatch.chdir(tmp_path)
    shown = re.search(
        r"```toml\n(.*?)```", (DOCS / "guides" / "training.md").read_text(), re.DOTALL
    )
    assert shown is not None
    Path("ears.toml").write_text(shown[1])
    result = earteach(*shlex.split(line), "--help")
    assert result.code == 0, result.err


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [t for t in targets if not (page.parent / t).exists()] == []


def test_options_that_are_named_exist() -> None:
    reference = (DOCS / "reference" / "cli.md").read_text()
    there = set(re.findall(r"--[a-z][a-z0-9-]+", reference))
    there |= {"--version", "--peer-ssim-weight"}  # the latter of benchmarks.quality
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"`(--[a-z][a-z0-9-]+)", text)) - there == set(), page.name
        assert set(re.findall(r"`earteach ([a-z][a-z-]*)", text)) <= set(COMMANDS), page.name


def test_the_schedules_are_drawn_as_they_are(tmp_path: Path) -> None:
    """`make docs` draws them anew."""
    made = tmp_path / "schedules.svg"
    subprocess.run([sys.executable, DOCS / "schedules.py", made], check=True)
    assert made.read_text() == (DOCS / "images" / "schedules.svg").read_text()


def test_the_reference_is_what_the_commands_say(tmp_path: Path) -> None:
    """`make docs` writes it anew."""
    made = tmp_path / "cli.md"
    command = [
        "-m", "typer", "earteach.cli.app", "utils", "docs",
        "--name", "earteach", "--title", "Command line", "--output", made,
    ]  # fmt: skip
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    assert made.read_text() == (ROOT / "docs" / "reference" / "cli.md").read_text()


def test_the_example_learns_landmarks_from_a_trained_encoder(trained: Run) -> None:
    command = [ROOT / "docs" / "examples" / "landmarker.py", trained.checkpoints]
    tiny = ["--ears", "12", "--epochs", "12", "--tests", "6"]
    ran = subprocess.run([sys.executable, *command, *tiny], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    curves = {line[:20].strip(): line[20:].split() for line in ran.stdout.splitlines()}
    assert list(curves) == ["trained, frozen", "trained, fine-tuned", "from scratch"]
    for errors in curves.values():
        assert len(errors) == 12
        assert float(errors[-1]) < float(errors[0])


def test_the_guide_to_run_diagnostics_names_their_codes() -> None:
    source = (ROOT / "earteach" / "metrics" / "diagnostics.py").read_text(encoding="utf-8")
    guide = (DOCS / "guides" / "doctor.md").read_text(encoding="utf-8")
    found = set(re.findall(r'Advice\("(\w+)"', source))
    assert found == set(re.findall(r"^\| `(\w+)`", guide, re.MULTILINE))
