"""`results.json`: the rows so far, kept only beside rows of the same settings."""

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
    """The benchmark of one folder. A row is what `child.measure` gives, and the command it came by."""

    path: Path
    settings: dict[str, Any]
    command: str
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, row: dict[str, Any]) -> None:
        """Put the row in the table's order and write the file, whole or not at all."""
        rows = {**self.rows, row["model"]: {**row, "command": self.command}}
        self.rows = {name: rows[name] for name in MODELS if name in rows}
        partial = self.path.with_suffix(".partial")
        values = {"settings": self.settings, "models": self.rows}
        partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        partial.replace(self.path)


def open_results(settings: Settings, out: Path, command: str, *, fresh: bool) -> Results:
    """The results in `out` so far.

    Raises `EarTeachError` where they have other settings, unless `fresh` forgets them.
    """
    path, described = out / FILE, describe(settings)
    new = Results(path, described, command)
    if not path.exists():
        return new
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        old, rows = found["settings"], found["models"]
    except (ValueError, KeyError, TypeError) as error:
        raise EarTeachError(
            f"{path}: is not a result of this benchmark; choose another --out"
        ) from (error)
    differing = sorted(name for name in described if old.get(name) != described[name])
    if differing and not fresh:
        changes = ", ".join(f"{name} {old.get(name)} → {described[name]}" for name in differing)
        raise EarTeachError(
            f"{path}: has other settings ({changes}); choose another --out, or forget it with --fresh"
        )
    if not differing:
        new.rows = rows
    return new


def describe(settings: Settings) -> dict[str, Any]:
    """What rows must share: the settings, and the arrays by their content."""
    values = {name: value for name, value in settings.to_dict().items() if name not in FREE}
    paths = {"train": settings.train, **{f"val {n}": path for n, path in settings.val.items()}}
    values["arrays"] = {name: EarArray.open(path).fingerprint() for name, path in paths.items()}
    return values
