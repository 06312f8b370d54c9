"""The anonymous memory that a call needs at most, in a process of its own.

python -m benchmarks.speed.memory eval CHECKPOINT ARRAY
python -m benchmarks.speed.memory reconstruct CHECKPOINT ARRAY OUT
python -m benchmarks.speed.memory embed CHECKPOINT ARRAY OUT
python -m benchmarks.speed.memory inspect ARRAY
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path


def peak(*arguments: object) -> float:
    """Megabytes of RssAnon; pages of a mapped file are the page cache's and do not count."""
    command = [sys.executable, "-m", "benchmarks.speed.memory", *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def _now() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no RssAnon in /proc/self/status")


def _watched(done: threading.Event, found: list[float]) -> None:
    while not done.wait(0.01):
        found[0] = max(found[0], _now())


def _call(what: str, *paths: str) -> None:
    if what == "inspect":
        from earteach.inspection import inspect_data

        inspect_data(paths[0])
    elif what == "eval":
        from earteach.inference.evaluate import evaluate

        evaluate(paths[0], paths[1], baselines=False)
    elif what == "embed":
        from earteach.inference.embed import embed

        embed(paths[0], Path(paths[1]), Path(paths[2]), logvar=True, features=True)
    else:
        from earteach.inference.reconstruct import reconstruct

        reconstruct(paths[0], [Path(paths[1])], Path(paths[2]))


def main() -> None:
    done, found = threading.Event(), [0.0]
    watch = threading.Thread(target=_watched, args=(done, found))
    watch.start()
    try:
        _call(*sys.argv[1:])
    finally:
        done.set()
        watch.join()
    print(found[0])


if __name__ == "__main__":
    main()
