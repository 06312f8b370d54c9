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
    "prepare", "info", "report", "embed", "probe", "distil", "landmarks", "sharpen",
]  # fmt: skip

# The options of `train` that are promised, with their defaults as help shows them.
PROMISED = {
    "Data": {
        "--train-data": "data/preprocessed/train_teacher.npy",
        "--val-data": "data/preprocessed/val_teacher.npy",
    },
    "Model": {
        "--in-channels": "3", "--latent-dim": "256", "--base-channels": "64", "--image-size": "256",
    },
    "Optimisation": {
        "--epochs": "200", "--batch-size": "32", "--learning-rate": None, "--weight-decay": "1e-05",
        "--gradient-clip": "1.0", "--patience": "30",
    },
    "KLD and its annealing": {
        "--kld-weight": "0.00025", "--kld-reduction": "mean", "--kld-anneal-strategy": "cyclic",
        "--kld-anneal-cycles": "4", "--kld-anneal-ratio": "0.5", "--kld-anneal-start": "0.0",
        "--kld-anneal-end": "1.0",
    },
    "Hardware": {
        "--accelerator": "auto", "--devices": "1", "--num-nodes": "1", "--strategy": "auto",
        "--precision": "32", "--num-workers": "4",
    },
    "Run": {"--checkpoint-dir": "checkpoints", "--log-dir": "logs", "--seed": "42"},
    "Options": dict.fromkeys(["--resume", "--fresh", "--fast-dev-run", "--config", "--json"]),
}  # fmt: skip
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
def train_help():
    result = earteach("train", "--help")
    assert result.code == 0
    return panels(result.out)


def test_train_help_has_the_promised_options(train_help):
    for panel, options in PROMISED.items():
        for flag, default in options.items():
            assert default is None or f"[default: {default}]" in train_help[panel][flag], flag


def test_train_help_describes_every_option(train_help):
    listed = {flag: text for panel in train_help.values() for flag, text in panel.items()}
    for _, option, _ in TrainConfig().options():
        assert (option.flag in listed) != option.hidden
        assert option.hidden or option.help in listed[option.flag]
        assert option.help.endswith(".")
    assert "--lr-peak" not in listed
    assert "--no-pca-init" in listed["--pca-init"]


@pytest.mark.parametrize("command", COMMANDS)
def test_command_has_help(command):
    result = earteach(command, "-h")
    assert result.code == 0
    assert f"{command} [OPTIONS]" in result.out
    assert "--json" in result.out


def test_help_lists_every_command_with_a_sentence():
    text = earteach("--help").out
    for command in COMMANDS:
        assert re.search(rf"^│ {command} +[A-Z].+\.", text, re.MULTILINE), command


def test_help_is_shown_where_nothing_is_asked():
    result = earteach()
    assert "Usage: earteach" in result.out + result.err


def test_version():
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
def imported():
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(LIGHT)], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, list[str]] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_help_and_the_package_import_nothing_heavy(imported):
    assert not (HEAVY | {"typer", "rich"}) & set(imported.pop("import earteach"))
    for line, libraries in imported.items():
        assert "typer" in libraries
        assert not HEAVY & set(libraries), line


def test_python_m_earteach_is_the_same():
    command = [sys.executable, "-m", "earteach", "--version"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, f"earteach {package.__version__}\n")
