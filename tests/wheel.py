"""Run the README with a wheel, in an environment of its own: `python -m tests.wheel FILE`."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.test_docs import ROOT, commands


def main(wheel: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="earteach-wheel-") as folder:
        place = Path(folder)
        venv.create(place / "venv", with_pip=True)
        binaries = place / "venv" / "bin"
        pip = [
            binaries / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        constraints = ["-c", ROOT / "constraints.txt"]
        subprocess.run([*pip, *constraints, f"{wheel.resolve()}[export]"], check=True)
        (place / "here").mkdir()
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        for line in ["--version", *commands(ROOT / "README.md")]:
            typed = [binaries / "earteach", *shlex.split(line)]
            subprocess.run(typed, check=True, cwd=place / "here", env=clean)
    sys.stdout.write(f"{wheel.name}: the README runs with it\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
