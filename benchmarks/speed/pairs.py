"""Two calls timed alternately, as a ratio with a target."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Bound = Literal["at most", "at least"]


@dataclass(frozen=True)
class Row:
    """One row of the table: earteach's figure, a reference's, and the target for their ratio."""

    what: str
    ours: float
    other: float
    unit: str
    bound: Bound
    target: float
    beside: str  # the reference

    @property
    def ratio(self) -> float:
        return self.ours / self.other

    @property
    def met(self) -> bool:
        return self.ratio <= self.target if self.bound == "at most" else self.ratio >= self.target


@dataclass(frozen=True)
class Pair:
    """Seconds of each turn."""

    ours: tuple[float, ...]
    other: tuple[float, ...]

    def row(self, what: str, bound: Bound, target: float, beside: str, scale: float = 1) -> Row:
        """A row of the medians, in seconds times `scale`."""
        ours, other = (statistics.median(times) * scale for times in (self.ours, self.other))
        return Row(what, ours, other, "s", bound, target, beside)

    def throughput(self, what: str, images: int, target: float, beside: str) -> Row:
        """A row of images per second; earteach should be at least `target` times as fast."""
        ours, other = (images / statistics.median(times) for times in (self.ours, self.other))
        return Row(what, ours, other, "images/s", "at least", target, beside)


def in_turn(ours: Callable[[], object], other: Callable[[], object], turns: int) -> Pair:
    """Time both alternately, after an uncounted turn of each."""
    for warm_up in (ours, other):
        warm_up()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns):
        for seconds, call in zip(times, (ours, other), strict=True):
            began = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - began)
    return Pair(tuple(times[0]), tuple(times[1]))


def processes_in_turn(ours: Sequence[str], other: Sequence[str], turns: int) -> Pair:
    """Time two commands as whole processes; raises `CalledProcessError` if one fails."""
    return in_turn(lambda: _run(ours), lambda: _run(other), turns)


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def peak_megabytes() -> float:
    """This process's largest resident memory so far.

    `ru_maxrss` would include the parent's memory at the fork.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
