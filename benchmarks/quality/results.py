"""`results.json`: the rows so far, all measured with the same settings."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.quality.settings import FREE, MODELS, Settings
from earteach.data.arrays import EarArray
from earteach.errors import EarTeachError

FILE = "results.json"


@dataclass
class Results:
    """The benchmark in one folder. A row is the result of `child.measure` and its command."""

    path: Path
    settings: dict[str, Any]
    command: str
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, row: dict[str, Any]) -> None:
        """Add the row, in the order of `MODELS`, and write the file atomically."""
        rows = {**self.rows, row["model"]: {**row, "command": self.command}}
        self.rows = {name: rows[name] for name in MODELS if name in rows}
        partial = self.path.with_suffix(".partial")
        values = {"settings": self.settings, "models": self.rows}
        partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        partial.replace(self.path)


def open_results(settings: Settings, out: Path, command: str, *, fresh: bool) -> Results:
    """The results in `out` so far.

    Raises `EarTeachError` if they have other settings, unless `fresh` discards them.
    """
    path, described = out / FILE, describe(settings)
    new = Results(path, described, command)
    if not path.exists():
        return new
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        old, rows = stored["settings"], stored["models"]
    except (ValueError, KeyError, TypeError) as error:
        raise EarTeachError(
            f"{path}: is not a result file of this benchmark; choose another --out"
        ) from (error)
    differing = sorted(name for name in described if old.get(name) != described[name])
    if differing and not fresh:
        changes = ", ".join(f"{name} {old.get(name)} → {described[name]}" for name in differing)
        raise EarTeachError(
            f"{path}: has other settings ({changes}); choose another --out, or discard it with --fresh"
        )
    if not differing:
        new.rows = rows
    return new


def describe(settings: Settings) -> dict[str, Any]:
    """What all rows share: the settings and the fingerprints of the arrays."""
    values = {name: value for name, value in settings.to_dict().items() if name not in FREE}
    paths = {"train": settings.train, **{f"val {n}": path for n, path in settings.val.items()}}
    values["arrays"] = {name: EarArray.open(path).fingerprint() for name, path in paths.items()}
    return values
