"""Each bad input: an exit code, one clear line on stderr, nothing on stdout, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.bad_input.cases import ARRAY, CASES, PLANTED, Case
from tests.bad_input.files import hostile, trap
from tests.conftest import Result, Run, earteach

# More than torch and its libraries take, and less than any of the bombs.
MOST_MEMORY = 1500 * 2**20
# As a script too, whose memory is looked at.
SCRIPTS = {
    "inspect-data: an array, a shape of a terabyte",
    "inspect-data: an array, a header a thousand deep",
    "prepare: JPEG, 60000 × 60000",
    "reconstruct: PNG of zeros, 12000 × 12000",
    "inspect-model: a device for bad.ckpt",
    "inspect-model --image-size 1600000000",
    "a photograph of 2 TB",
    "prepare --synthetic 99999999999999 --out new",
    *(str(case) for case in CASES if "1000 to 1" in case.name or "8 TB" in case.name),
}


@pytest.fixture
def place(trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a case is tried."""
    monkeypatch.chdir(tmp_path)
    Path("good.ckpt").hardlink_to(trained.last)
    Path("good.npy").write_bytes(ARRAY)
    return tmp_path


def make(case: Case) -> None:
    for name, made in case.files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(made, bytes):
            path.write_bytes(made)
        else:
            made(path)


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Each file and folder with its size and time of change."""
    stats = {path: path.lstat() for path in folder.rglob("*")}
    return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


def assert_refused(case: Case, result: Result) -> None:
    assert result.code == case.code, result.err
    assert result.out == ""
    if case.code == 1:
        *said, error = result.err.splitlines()
        assert all(line.startswith("note: ") for line in said), result.err
        assert error.startswith("error: ")
    assert "Traceback" not in result.err
    assert not set(result.err) & {"\x1b", "\x07", "\x9b"}
    for word in case.words.split("|"):
        assert word in result.err


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bad_input(place: Path, case: Case) -> None:
    make(case)
    before = contents(place)
    assert_refused(case, earteach(*case.typed.split()))
    assert contents(place) == before


def test_each_case_has_a_name_of_its_own() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert set(names) >= SCRIPTS


# A process counts the memory of the one that started it, so a small one lies between.
MEASURING = """
import os, resource, subprocess, sys
code = subprocess.run([sys.executable, "-m", "earteach", *sys.argv[2:]]).returncode
os.write(int(sys.argv[1]), str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss).encode())
sys.exit(code)
"""


def run_as_script(*typed: str) -> tuple[Result, int]:
    """Also the most memory that the process held, in bytes."""
    readable, writable = os.pipe()
    command = [sys.executable, "-c", MEASURING, str(writable), *typed]
    done = subprocess.run(command, capture_output=True, text=True, pass_fds=[writable])
    os.close(writable)
    with os.fdopen(readable) as file:
        kilobytes = int(file.read())
    return Result(done.returncode, done.stdout, done.stderr), kilobytes * 1024


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in CASES if c.name in SCRIPTS], ids=str)
def test_bad_input_to_the_script(place: Path, case: Case) -> None:
    make(case)
    before = contents(place)
    result, memory = run_as_script(*case.typed.split())
    assert_refused(case, result)
    assert contents(place) == before
    assert memory < MOST_MEMORY


def test_hostile_files_would_act_without_care(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nothing is shown by their being refused."""
    monkeypatch.chdir(tmp_path)
    planted, path = Path(PLANTED), Path("hostile.ckpt")
    acting = set()
    for name, content in hostile(PLANTED).items():
        path.write_bytes(content())
        with contextlib.suppress(Exception):
            torch.load(path, weights_only=False)
        if planted.exists():
            acting.add(name)
            planted.unlink()
    assert {"os.system", "os.system, old format", "eval", "instance opcode"} <= acting
    assert {"object opcode", "names from the stack", "as a key", "as a persistent object"} <= acting
    path.write_bytes(trap(PLANTED))
    np.load(path, allow_pickle=True)
    assert planted.is_dir()
