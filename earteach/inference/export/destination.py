"""The files of an export, and which existing files it may replace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earteach.checkpoint import file_hash
from earteach.config import ExportFormat
from earteach.errors import EarTeachError


@dataclass(frozen=True)
class Destination:
    """One file at `path`, or a folder there with files of these `names`; and the JSON about it."""

    path: Path
    names: tuple[str, ...]

    @property
    def files(self) -> dict[str, Path]:
        return {name: self.path / name for name in self.names} or {self.path.name: self.path}

    @property
    def sidecar(self) -> Path:
        """`export.json` in a folder, `<name>.json` beside a file."""
        path = self.path
        return path / "export.json" if self.names else path.with_name(f"{path.name}.json")

    def check_replaceable(self, format: ExportFormat) -> None:
        """Raise `EarTeachError` for existing files, unless an export wrote them as they are."""
        wrong_kind = self.path.exists() and self.path.is_dir() != bool(self.names)
        existing = {name: path for name, path in self.files.items() if path.exists()}
        if not (wrong_kind or existing or self.sidecar.exists()):
            return
        if wrong_kind or not self._describes(existing, format):
            raise EarTeachError(
                f"{self.path if self.path.exists() else self.sidecar}: exists and is not an "
                f"unchanged {format} export of earteach; move it away or choose another --out"
            )

    def fill(self, staged: Mapping[str, Path], description: Mapping[str, Any]) -> None:
        """Move the staged files here and describe them; other files in the folder stay."""
        text = json.dumps(description, indent=2, ensure_ascii=True) + "\n"
        partial = next(iter(staged.values())).with_name("description")
        partial.write_text(text, encoding="utf-8")
        if self.names:
            self.path.mkdir(exist_ok=True)
        for name, path in self.files.items():
            staged[name].replace(path)
        partial.replace(self.sidecar)

    def _describes(self, existing: Mapping[str, Path], format: ExportFormat) -> bool:
        """Whether the sidecar has the hashes of all existing files."""
        try:
            description = json.loads(self.sidecar.read_text(encoding="utf-8"))
            if "earteach" not in description or description["format"] != format:
                return False
            hashes = description["files"]
            return all(hashes[name] == file_hash(path) for name, path in existing.items())
        except (OSError, ValueError, KeyError, TypeError):
            return False
