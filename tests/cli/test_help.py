"""What `--help` says, and that it says it at once."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

import earteach as package
from earteach.config import TrainConfig
from tests.conftest import earteach

COMMANDS = [
    "train", "resume", "eval", "reconstruct", "sample", "export", "inspect-data", "inspect-model",
    "prepare", "info", "report", "embed",
]  # fmt: skip

# The options of `train` that are promised, with their defaults as help shows them.
PROMISED = {
    "Data": {
        "--train-data": "data/preprocessed/train_teacher.npy",
        "--val-data": "data/preprocessed/val_teacher.npy",
    },
    "Model": {
        "--in-channels": "3",
        "--latent-dim": "256",
        "--base-channels": "64",
        "--image-size": "256",
    },
    "Optimisation": {
        "--epochs": "200",
        "--batch-size": "32",
        "--learning-rate": "0.0001",
        "--weight-decay": "1e-05",
        "--gradient-clip": "1.0",
        "--patience": "30",
    },
    "KLD and its annealing": {
        "--kld-weight": "0.00025",
        "--kld-reduction": "mean",
        "--kld-anneal-strategy": "cyclic",
        "--kld-anneal-cycles": "4",
        "--kld-anneal-ratio": "0.5",
        "--kld-anneal-start": "0.0",
        "--kld-anneal-end": "1.0",
    },
    "Hardware": {
        "--accelerator": "auto",
        "--devices": "1",
        "--num-nodes": "1",
        "--strategy": "auto",
        "--precision": "32",
        "--num-workers": "4",
    },
    "Run": {"--checkpoint-dir": "checkpoints", "--log-dir": "logs", "--seed": "42"},
    "Options": {
        "--resume": None,
        "--fresh": None,
        "--fast-dev-run": None,
        "--config": None,
        "--json": None,
    },
}
HEAVY = {
    "torch", "torchvision", "numpy", "cv2", "PIL", "pytorch_lightning", "lightning_fabric",
    "albumentations", "torchmetrics", "sklearn", "scipy", "onnx", "onnxruntime", "tensorboard",
}  # fmt: skip


def panels(text: str) -> dict[str, dict[str, str]]:
    """Help as panel → option → its text, continued lines joined."""
    found: dict[str, dict[str, str]] = {}
    panel = option = ""
    for line in text.splitlines():
        if title := re.match(r"╭─ (.+?) ─+╮", line):
            panel = title[1]
            found[panel] = {}
        elif line.startswith("│"):
            content = line.strip("│ ")
            if flag := re.match(r"--[a-z-]+", content):
                option = flag[0]
                found[panel][option] = content
            elif option in found[panel]:
                found[panel][option] += f" {content}"
    return found


@pytest.fixture(scope="module")
def train_help() -> dict[str, dict[str, str]]:
    result = earteach("train", "--help")
    assert result.code == 0
    return panels(result.out)


@pytest.mark.parametrize(
    ("panel", "flag", "default"),
    [(panel, *pair) for panel, options in PROMISED.items() for pair in options.items()],
)
def test_train_help_has_option(
    train_help: dict[str, dict[str, str]], panel: str, flag: str, default: str | None
) -> None:
    text = train_help[panel][flag]
    assert default is None or f"[default: {default}]" in text


def test_train_help_has_every_option_with_a_sentence(
    train_help: dict[str, dict[str, str]],
) -> None:
    listed = {flag: text for panel in train_help.values() for flag, text in panel.items()}
    for _, option, _ in TrainConfig().options():
        assert option.flag in listed
        assert option.opt.help in listed[option.flag]
        assert option.opt.help.endswith(".")


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("command", COMMANDS)
def test_command_has_help(command: str, flag: str) -> None:
    result = earteach(command, flag)
    assert result.code == 0
    assert f"{command} [OPTIONS]" in result.out
    assert "--json" in result.out


def test_help_lists_every_command_with_a_sentence() -> None:
    text = earteach("--help").out
    for command in COMMANDS:
        assert re.search(rf"^│ {command} +[A-Z].+\.", text, re.MULTILINE), command


def test_help_is_shown_where_nothing_is_asked() -> None:
    result = earteach()
    assert "Usage: earteach" in result.out + result.err


def test_version() -> None:
    result = earteach("--version")
    assert (result.code, result.out) == (0, f"earteach {package.__version__}\n")


# Runs command lines one after the other and says after each which libraries are imported.
PROGRAM = """
import json, sys
def libraries():
    return sorted({name.split(".")[0] for name in sys.modules})
import earteach
found = {"import earteach": libraries()}
from earteach.cli.app import app
for line in json.loads(sys.argv[1]):
    try:
        app(line.split())
    except SystemExit as end:
        assert not end.code, line
    found[line] = libraries()
print(json.dumps(found))
"""
LIGHT = ["--help", "--version", *(f"{command} --help" for command in COMMANDS)]


@pytest.fixture(scope="module")
def imported() -> dict[str, list[str]]:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(LIGHT)], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, list[str]] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("line", LIGHT)
def test_help_imports_nothing_heavy(imported: dict[str, list[str]], line: str) -> None:
    assert {"earteach", "typer"} <= set(imported[line])
    assert not HEAVY & set(imported[line])


def test_the_package_imports_nothing_heavy(imported: dict[str, list[str]]) -> None:
    assert not (HEAVY | {"typer", "rich"}) & set(imported["import earteach"])


def test_python_m_earteach_is_the_same() -> None:
    command = [sys.executable, "-m", "earteach", "--version"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, f"earteach {package.__version__}\n")
