"""Tab, as the shells ask for it: bash runs what Typer installs, zsh's request is made here."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BEST = ["best-epoch=000-loss=0.2.ckpt", "best-epoch=004-loss=0.1.ckpt"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with checkpoints, arrays and a TOML file by name, and `earteach` in its bin/."""
    folder = tmp_path_factory.mktemp("completion")
    for name in [
        *(f"checkpoints/{name}" for name in (*BEST, "last.ckpt", "about.json")),
        "runs/1/last.ckpt", "runs/2/last.ckpt", "data/train_teacher.npy", "wide.toml",
    ]:  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    program = folder / "bin" / "earteach"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom earteach.cli.app import main\nmain()\n")
    program.chmod(0o755)
    return folder


def ask(folder: Path, *command: str, **env: str) -> str:
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def bash(folder: Path, *words: str) -> list[str]:
    """What bash would offer for the last of the words, which are broken as bash breaks them."""
    script = ask(folder, "earteach", _EARTEACH_COMPLETE="source_bash")
    asked = (
        f"{script}\nCOMP_WORDS=({shlex.join(['earteach', *words])}); COMP_CWORD={len(words)}\n"
        "_earteach_completion earteach; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    return [line for line in ask(folder, "bash", "--norc", "-c", asked).splitlines() if line]


def zsh(folder: Path, line: str) -> str:
    """The command with which zsh completes the end of the line."""
    return ask(folder, "earteach", _EARTEACH_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=line)


FORMATS = ["onnx", "torchscript", "torch-export", "safetensors", "openvino"]
CHECKPOINTS = [f"checkpoints/{name}" for name in (*BEST, "last.ckpt")]
OFFERED = [
    (["tr"], ["train"]),
    (["export", "--format", ""], FORMATS),
    (["train", "--precision", ""], ["32", "16", "bf16"]),
    (["train", "--strategy", "d"], ["ddp"]),
    (["train", "--in-channels", ""], ["1", "3"]),
    (["eval", ""], CHECKPOINTS),
    (["eval", "--checkpoint-dir", "runs/2", "runs/2"], ["runs/2/last.ckpt"]),
    (["train", "--resume", "checkpoints/l"], CHECKPOINTS[-1:]),
    # Left to the shell, which knows files.
    (["train", "--train-data", "da"], []),
    (["train", "--config", "w"], []),
    (["train", "--config", "missing.toml", "--precision", "b"], ["bf16"]),
]


@pytest.mark.parametrize(("words", "offered"), OFFERED, ids=lambda words: " ".join(words))
def test_bash_and_zsh_offer_what_fits(folder, words, offered):
    assert sorted(bash(folder, *words)) == sorted(offered)
    answer = zsh(folder, " ".join(["earteach", *words]))
    if offered:
        assert answer.startswith("_arguments ")
        assert all(f'"{word}"' in answer for word in offered)
    else:
        assert answer.strip() == "_files"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["export", "--format", "=", "on"], ["onnx"]),
        (["eval", "checkpoints/best-epoch", "=", "004-loss", "=", ""], ["0.1.ckpt"]),
        (["train", "--resume", "checkpoints/best-epoch", "=", "004"], ["004-loss=0.1.ckpt"]),
    ],
    ids=lambda words: " ".join(words),
)  # fmt: skip
def test_bash_goes_on_behind_an_equals_sign(folder, words, offered):
    assert bash(folder, *words) == offered


def test_completion_imports_nothing_heavy(folder):
    script = (
        "import sys\nsys.argv = ['earteach']\nfrom earteach.cli.app import main\n"
        "try:\n    main()\nfinally:\n    print(*(m for m in ('torch', 'numpy') if m in sys.modules))"
    )
    said = ask(
        folder, sys.executable, "-c", script,
        _EARTEACH_COMPLETE="complete_bash", COMP_WORDS="earteach\neval\ncheckpoints/l", COMP_CWORD="2",
    )  # fmt: skip
    assert said.split() == ["checkpoints/last.ckpt"]
