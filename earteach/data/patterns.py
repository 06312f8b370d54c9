"""Regular expressions from the command line."""

from __future__ import annotations

import re

from earteach.errors import EarTeachError


def compiled(flag: str, pattern: str) -> re.Pattern[str]:
    """The compiled pattern; raises `EarTeachError` that names the flag if it is not valid."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise EarTeachError(f"{flag} {pattern}: not a regular expression: {error}") from error


def first_group(flag: str, pattern: re.Pattern[str], name: str) -> str:
    """The text that the pattern's first group matches in a name, or the whole match without groups.

    Raises `EarTeachError` if it matches nothing.
    """
    match = pattern.search(name)
    text = match and match[1 if pattern.groups else 0]
    if not text:
        raise EarTeachError(
            f"{flag} {pattern.pattern}: finds nothing in {name}; it must match every name"
        )
    return text
