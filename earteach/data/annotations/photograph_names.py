"""Annotations are of photographs that they name: which are below the folder that was given."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from earteach.data.annotations.annotation import Annotation
from earteach.errors import EarTeachError

_log = logging.getLogger(__name__)


class Annotations:
    """The annotations in a file or a folder, by the names that it gives to photographs.

    A name is never opened: it only tells which of the photographs that were found it is of.
    """

    def __init__(self, origin: str, by_name: Mapping[str, Sequence[Annotation]]) -> None:
        self.origin = origin
        self._by_name: defaultdict[str, tuple[Annotation, ...]] = defaultdict(tuple)
        for name, found in by_name.items():
            self._by_name[_plain(name)] += tuple(found)

    def of(self, photographs: Sequence[Path]) -> list[tuple[Annotation, ...] | None]:
        """The annotations of each photograph, which is given by its path below its folder.

        A name fits a photograph where one of the two is how the other ends, with its suffix or without:
        `/old/place/anna/1.png` and `anna/1.png`, or `anna/1` and `photos/anna/1.png`. None for a
        photograph that is not named. Raises `EarTeachError` where none is, and where what fits is not
        one to one.
        """
        keys = _Names(self._by_name).of(photographs, self.origin)
        if not any(keys):
            raise EarTeachError(
                f"{self.origin}: has nothing for {photographs[0].as_posix()} nor for any other "
                f"photograph; it names {next(iter(self._by_name), 'none')}"
            )
        uses = Counter(key for key in keys if key is not None)
        for key, number in uses.items():
            if number > 1:
                raise EarTeachError(
                    f"{self.origin}: {key} fits {number} photographs; write their folders too, as in "
                    f"{photographs[keys.index(key)].as_posix()}"
                )
        absent = [name for name in self._by_name if name not in uses]
        if absent:
            _log.info(
                "%d of the %d photographs that %s names are not there (the first: %s)",
                len(absent), len(self._by_name), self.origin, absent[0],
            )  # fmt: skip
        return [None if key is None else self._by_name[key] for key in keys]


class _Names:
    """Names found by how they end."""

    def __init__(self, names: Mapping[str, object]) -> None:
        self._names = names
        self._ends: defaultdict[str, list[str]] = defaultdict(list)
        for name in names:
            for end in _ends(PurePosixPath(name)):
                self._ends[end].append(name)

    def of(self, photographs: Sequence[Path], origin: str) -> list[str | None]:
        return [self._one(photograph, origin) for photograph in photographs]

    def _one(self, photograph: Path, origin: str) -> str | None:
        whole = photograph.as_posix()
        bare = whole.removesuffix(photograph.suffix)
        for end in _ends(PurePosixPath(whole)):
            for name in (end, end.removesuffix(photograph.suffix)):
                if name in self._names:
                    return name
        longer = [
            name
            for name in dict.fromkeys((*self._ends[whole], *self._ends[bare]))
            if name.endswith((whole, bare))
        ]
        if len(longer) > 1:
            raise EarTeachError(
                f"{origin}: both {longer[0]} and {longer[1]} fit {whole}; name the folder above their "
                "folders as SOURCE"
            )
        return longer[0] if longer else None


def _ends(path: PurePosixPath) -> list[str]:
    return ["/".join(path.parts[place:]) for place in range(len(path.parts))]


def _plain(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).as_posix().lstrip("/")
