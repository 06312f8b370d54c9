"""The stages import one way, and heavy libraries stay where they are needed.

`errors, config ← data, model ← metrics ← checkpoint, inspection ← training, inference ← cli`
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import earteach
from tests.conftest import Run

ROOT = Path(earteach.__file__).parent
# A stage imports from those above it in this list, never from its own line or below.
LEVELS = [
    ["errors", "_version"],
    ["config", "files", "run_files"],
    ["images", "environment", "hardware", "charts", "randomness"],
    ["synthetic", "model"],
    ["data"],
    ["metrics"],
    ["checkpoint", "inspection"],
    ["run_identity"],
    ["training", "inference"],
    ["distillation"],
    ["runs"],
    ["cli"],
    ["__main__"],
]
LEVEL = {stage: level for level, stages in enumerate(LEVELS) for stage in stages}
# Who may import what costs seconds.
USERS = {
    "pytorch_lightning": {"training", "distillation"},
    "lightning_fabric": {"training"},
    "lightning": set[str](),
    "torchmetrics": {"metrics", "training"},
    "tensorboard": {"training", "inference"},
    "albumentations": {"data"},
    "sklearn": {"metrics"},
    "matplotlib": {"charts"},
    "onnx": {"inference"},
    "onnxruntime": {"inference"},
    "openvino": {"inference"},
    "pyarrow": {"inference"},
    "safetensors": {"inference", "model"},
    "typer": {"cli"},
    "rich": {"cli"},
    # Typer carries its own copy.
    "click": set[str](),
}


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def stage_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(node: ast.AST, type_checking: bool = True) -> Iterator[str]:
    """The modules that a file imports, inside functions too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            assert child.module is not None
            if child.module == "earteach":
                yield from (f"earteach.{alias.name}" for alias in child.names)
            else:
                yield child.module
        elif type_checking or not _is_type_checking(child):
            yield from imports(child, type_checking)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_the_package_is_read() -> None:
    assert {"errors", "config", "data", "model", "cli"} <= {stage_of(path) for path in modules()}


@pytest.mark.parametrize("path", modules(), ids=named)
def test_imports_run_one_way(path: Path) -> None:
    own = stage_of(path)
    if own == "__init__":
        return
    assert own in LEVEL, f"say in LEVELS where {own} stands"
    for name in imports(parsed(path)):
        if name.startswith("earteach."):
            stage = name.split(".")[1]
            assert stage in LEVEL, name
            assert stage == own or LEVEL[stage] < LEVEL[own], f"{named(path)} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=named)
def test_heavy_libraries_stay_in_their_stage(path: Path) -> None:
    for name in imports(parsed(path)):
        library = name.split(".")[0]
        users = USERS.get(library)
        assert users is None or stage_of(path) in users, f"{named(path)} imports {name}"


def test_the_package_itself_imports_nothing_of_its_own() -> None:
    tree = parsed(ROOT / "__init__.py")
    assert set(imports(tree, type_checking=False)) == {"importlib", "typing", "earteach._version"}


@pytest.mark.parametrize("name", earteach.__all__)
def test_public_name_can_be_imported(name: str) -> None:
    assert getattr(earteach, name) is not None
    assert name in dir(earteach)


def test_other_names_are_missing_as_usual() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = earteach.nothing


# Runs commands one after the other and says after each which modules it brought.
PROGRAM = """
import json, sys
from earteach.cli.app import app
found = {}
for name, args in json.loads(sys.argv[1]).items():
    try:
        app(args)
    except SystemExit as end:
        assert not end.code, (name, end.code)
    found[name] = sorted({module.split(".")[0] for module in sys.modules})
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def imported(ears: Path, trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The libraries in a process after each of the commands that must be light."""
    out, folder = tmp_path_factory.mktemp("out"), ["--checkpoint-dir", str(trained.checkpoints)]
    pictures = ["--input", str(ears / "val_teacher.npy"), "--out", str(out / "r")]
    commands = {
        "sample": ["sample", *folder, "--out", str(out / "s"), "-n", "2"],
        "reconstruct": ["reconstruct", *folder, *pictures],
        "export": ["export", *folder, "--format", "safetensors", "--out", str(out / "e")],
        "embed": ["embed", *folder, *pictures[:2], "--out", str(out / "codes.npz")],
    }
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)],
        env=os.environ, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("library", ["pytorch_lightning", "albumentations", "torchmetrics"])
@pytest.mark.parametrize("command", ["sample", "reconstruct", "export", "embed"])
def test_light_command_does_not_import(imported: Any, command: str, library: str) -> None:
    assert "torch" in imported[command]
    assert library not in imported[command]
