"""Match the photographs that an annotation file names with those in the source folder."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from earteach.data.annotations.annotation import Annotation
from earteach.errors import EarTeachError

_log = logging.getLogger(__name__)


class Annotations:
    """The annotations in a file or folder (`origin`), by the names that it gives to photographs.

    Names are compared with those of the photographs; they are never opened.
    """

    def __init__(self, origin: str, by_name: Mapping[str, Sequence[Annotation]]) -> None:
        self._origin = origin
        self._by_name: defaultdict[str, tuple[Annotation, ...]] = defaultdict(tuple)
        for name, ears in by_name.items():
            self._by_name[_normalized(name)] += tuple(ears)
        self._by_suffix: defaultdict[str, list[str]] = defaultdict(list)
        for name in self._by_name:
            for suffix in _suffixes(name):
                self._by_suffix[suffix].append(name)

    def of(self, photographs: Sequence[Path]) -> list[tuple[Annotation, ...] | None]:
        """The annotations of each photograph, given by its path relative to the source folder.

        A name matches a photograph if one of the two ends with the other, with or without its suffix:
        `/old/place/anna/1.png` and `anna/1.png`, or `anna/1` and `photos/anna/1.png`. None for a
        photograph that is not named. Raises `EarTeachError` if none is named, or if a name or a
        photograph matches several.
        """
        names = [self._match(photograph) for photograph in photographs]
        if not any(names):
            raise EarTeachError(
                f"{self._origin}: has no entry for {photographs[0].as_posix()} or any other "
                f"photograph; it names {next(iter(self._by_name), 'none')}"
            )
        uses = Counter(name for name in names if name is not None)
        for name, number in uses.items():
            if number > 1:
                raise EarTeachError(
                    f"{self._origin}: {name} matches {number} photographs; add their folders, as "
                    f"in {photographs[names.index(name)].as_posix()}"
                )
        unused = [name for name in self._by_name if name not in uses]
        if unused:
            _log.info(
                "%d of the %d photographs named in %s are missing (the first: %s)",
                len(unused), len(self._by_name), self._origin, unused[0],
            )  # fmt: skip
        return [None if name is None else self._by_name[name] for name in names]

    def _match(self, photograph: Path) -> str | None:
        """The name that fits a photograph: as long as its path or shorter if there is one, or longer."""
        path = photograph.as_posix()
        for end in _suffixes(path):
            for name in (end, end.removesuffix(photograph.suffix)):
                if name in self._by_name:
                    return name
        bare = path.removesuffix(photograph.suffix)
        longer = list(dict.fromkeys((*self._by_suffix[path], *self._by_suffix[bare])))
        if len(longer) > 1:
            raise EarTeachError(
                f"{self._origin}: both {longer[0]} and {longer[1]} match {path}; name the folder "
                "above their folders as SOURCE"
            )
        return longer[0] if longer else None


def _suffixes(path: str) -> list[str]:
    """The path, and what is left without its first folders, longest first."""
    parts = PurePosixPath(path).parts
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _normalized(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).as_posix().lstrip("/")
