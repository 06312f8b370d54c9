"""Regular expressions from the command line, in names whose accents may be composed or not."""

from __future__ import annotations

import re
import unicodedata

from earteach.errors import EarTeachError


def search(flag: str, pattern: str, name: str) -> re.Match[str] | None:
    """Where the pattern matches in a name; both are compared in Unicode's form NFC.

    Raises `EarTeachError` that names the flag if the pattern is not valid.
    """
    try:
        return re.search(unicodedata.normalize("NFC", pattern), unicodedata.normalize("NFC", name))
    except re.error as error:
        raise EarTeachError(f"{flag} {pattern}: not a regular expression: {error}") from error


def first_group(flag: str, pattern: str, name: str) -> str:
    """The text that the pattern's first group matches in a name, or the whole match without groups.

    Raises `EarTeachError` if it matches nothing, and as `search`.
    """
    match = search(flag, pattern, name)
    text = match and match[1 if match.re.groups else 0]
    if not text:
        raise EarTeachError(f"{flag} {pattern}: finds nothing in {name}; it must match every name")
    return text
