"""Match the photographs that an annotation file names with those in the source folder."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from earteach.data.annotations.annotation import Annotation
from earteach.data.photographs import SUFFIXES as IMAGE_SUFFIXES
from earteach.errors import EarTeachError

# What Label Studio puts before the names of photographs that are uploaded to it; not a date.
_DATE = r"(?:(?:19|20)\d{6}|\d{4}(?:19|20)\d\d)"
_UPLOADED = re.compile(rf"(?<![^/])(?!{_DATE}-)[0-9a-f]{{8}}-(?=[^/]+$)")
_log = logging.getLogger(__name__)


class Annotations:
    """The annotations in a file or folder (`origin`), by the names that it gives to photographs.

    Names are compared with those of the photographs; they are never opened. `slips` are the annotations
    that could not be read: their file, and why. `own_names` are those of names to which the folder of
    their file was added, without it.
    """

    def __init__(
        self,
        origin: str,
        by_name: Mapping[str, Sequence[Annotation]],
        slips: Sequence[tuple[Path, str]] = (),
        own_names: Mapping[str, str] | None = None,
    ) -> None:
        self._origin = origin
        self.slips = tuple(slips)
        self._by_name: defaultdict[str, tuple[Annotation, ...]] = defaultdict(tuple)
        for name, ears in by_name.items():
            self._by_name[_normalized(name)] += tuple(ears)
        self._own_names = {name: _normalized(own) for name, own in (own_names or {}).items()}

    def of(self, photographs: Sequence[Path]) -> list[tuple[Annotation, ...] | None]:
        """The annotations of each photograph, given by its path relative to the source folder.

        A name matches a photograph if one of the two ends with the other, with or without its suffix:
        `/old/place/anna/1.png` and `anna/1.png`, or `anna/1` and `photos/anna/1.png`. Names that match
        nothing in this way are compared without regard to case, to the name's own suffix, and to what an
        upload put before it. None for a photograph that is not named. Raises `EarTeachError` if none is
        named, or if a name or a photograph matches several.
        """
        paths = [unicodedata.normalize("NFC", path.as_posix()) for path in photographs]
        by_name = self._named_for(paths)
        names = _matched(self._origin, by_name, paths, key=str)
        for key in (_bare, _before_upload):
            self._match_loosely(by_name, paths, names, key)
        if not any(names):
            first = " ".join(next(iter(by_name), "none").split())  # it may hold line breaks
            raise EarTeachError(
                f"{self._origin}: has no entry for {paths[0]} or any other photograph; it names {first}"
            )
        uses = Counter(name for name in names if name is not None)
        for name, number in uses.items():
            if number > 1:
                self._refuse(
                    name, [path for path, its in zip(paths, names, strict=True) if its == name]
                )
        unused = [name for name in by_name if name not in uses]
        if unused:
            _log.info(
                "%d of the %d photographs named in %s are missing (the first: %s)",
                len(unused), len(by_name), self._origin, unused[0],
            )  # fmt: skip
        return [None if name is None else by_name[name] for name in names]

    def _named_for(self, paths: Sequence[str]) -> Mapping[str, tuple[Annotation, ...]]:
        """The annotations by full names, or by the files' own if no photograph lies in such a folder."""
        own = {name: self._own_names.get(name, name) for name in self._by_name}
        if list(own) == list(own.values()) or len(set(own.values())) < len(own):
            return self._by_name
        ends = {end for path in paths for end in _suffixes(_bare(path))}
        if any(_bare(name) in ends for name in own):
            return self._by_name
        _log.info(
            "no photograph lies in a folder like those of the files in %s; comparing names without them "
            "(the first: %s)", self._origin, next(iter(own.values())),
        )  # fmt: skip
        return {own[name]: ears for name, ears in self._by_name.items()}

    def _match_loosely(
        self,
        by_name: Iterable[str],
        paths: Sequence[str],
        names: list[str | None],
        key: Callable[[str], str],
    ) -> None:
        """Fill in the photographs that match a name by its `key`, whatever their case and suffix."""
        left = [number for number, name in enumerate(names) if name is None]
        used = set(names)
        unused = [name for name in by_name if name not in used]
        if not left or not unused:
            return
        bare = [_bare(paths[number]) for number in left]
        found = _matched(self._origin, unused, bare, key=key)
        loose = [(number, name) for number, name in zip(left, found, strict=True) if name]
        for number, name in loose:
            names[number] = name
        if loose:
            number, name = loose[0]
            _log.info(
                "%d names in %s fit photographs only loosely (the first: %s for %s)",
                len(loose), self._origin, name, paths[number],
            )  # fmt: skip

    def _refuse(self, name: str, paths: Sequence[str]) -> None:
        first, second = paths[:2]
        same_folder = PurePosixPath(first).parent == PurePosixPath(second).parent
        what = "their suffixes" if same_folder else "their folders"
        raise EarTeachError(
            f"{self._origin}: {' '.join(name.split())} matches {len(paths)} photographs "
            f"({first}, {second} …); add {what} to the names, as in {first}"
        )


def _matched(
    origin: str, names: Iterable[str], paths: Sequence[str], key: Callable[[str], str]
) -> list[str | None]:
    """The name that fits each path, if `key` makes both comparable; raises for a path that fits several.

    It is as long as the path or shorter if there is such a one, or longer.
    """
    whole: defaultdict[str, list[str]] = defaultdict(list)
    by_suffix: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        whole[key(name)].append(name)
        for suffix in _suffixes(key(name)):
            by_suffix[suffix].append(name)
    found = list[str | None]()
    for path in paths:
        ends = [end for shorter in _suffixes(path) for end in (shorter, _without_suffix(shorter))]
        fitting = next((whole[end] for end in ends if end in whole), None)
        if fitting is None:
            longer = (name for end in ends[:2] for name in by_suffix.get(end, ()))
            fitting = list(dict.fromkeys(longer))
        if len(fitting) > 1:
            raise EarTeachError(
                f"{origin}: both {fitting[0]} and {fitting[1]} match {path}; name the folder above "
                "their folders as SOURCE"
            )
        found.append(fitting[0] if fitting else None)
    return found


def _suffixes(path: str) -> list[str]:
    """The path, and what is left without its first folders, longest first."""
    parts = PurePosixPath(path).parts
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _without_suffix(path: str) -> str:
    return path.removesuffix(PurePosixPath(path).suffix)


def _bare(path: str) -> str:
    """A path to compare loosely: without case and an image's suffix."""
    suffix = PurePosixPath(path).suffix
    return (path.removesuffix(suffix) if suffix.lower() in IMAGE_SUFFIXES else path).casefold()


def _before_upload(name: str) -> str:
    return _UPLOADED.sub("", _bare(name))


def in_folder(folder: str, name: str) -> str:
    """A name in a file of labels, with the folder of its photographs if it does not have that yet."""
    name = _normalized(name)
    return name if folder == "." or f"/{folder}/" in f"/{name}" else f"{folder}/{name}"


def _normalized(name: str) -> str:
    """A name as a path: of an address, what follows the server."""
    if "://" in name:
        with suppress(ValueError):
            name = unquote(urlsplit(name).path)
    name = unicodedata.normalize("NFC", name.replace("\\", "/"))
    return PurePosixPath(name).as_posix().lstrip("/")
