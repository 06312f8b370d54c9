"""Regular expressions from the command line."""

from __future__ import annotations

import re

from earteach.errors import EarTeachError


def compiled(flag: str, pattern: str) -> re.Pattern[str]:
    """The regular expression, or an `EarTeachError` that names the flag it came from."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise EarTeachError(f"{flag} {pattern}: not a regular expression: {error}") from error


def found_in(flag: str, pattern: re.Pattern[str], name: str) -> str:
    """What the first group of the pattern finds in a name, or all of it where there is no group.

    Raises `EarTeachError` where it finds nothing.
    """
    match = pattern.search(name)
    found = match and match[1 if pattern.groups else 0]
    if not found:
        raise EarTeachError(
            f"{flag} {pattern.pattern}: finds nothing in {name}; it must in every name"
        )
    return found
