"""The peak anonymous memory of a call, in a process of its own.

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
    """Megabytes of RssAnon, which does not count the pages of memory-mapped files."""
    command = [sys.executable, "-m", "benchmarks.speed.memory", *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def _now() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no RssAnon in /proc/self/status")


def _call(command: str, *paths: str) -> None:
    import earteach

    first, *others = map(Path, paths)
    if command == "inspect":
        earteach.inspect_data(first)
    elif command == "eval":
        earteach.evaluate(first, *others, baselines=False)
    elif command == "embed":
        earteach.embed(first, *others, logvar=True, features=True)
    else:
        array, out = others
        earteach.reconstruct(first, [array], out)


def main() -> None:
    done, largest = threading.Event(), [0.0]

    def watch() -> None:
        while not done.wait(0.01):
            largest[0] = max(largest[0], _now())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        _call(*sys.argv[1:])
    finally:
        done.set()
        thread.join()
    print(largest[0])


if __name__ == "__main__":
    main()
