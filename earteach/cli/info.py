"""`earteach info`."""

from __future__ import annotations

from earteach.cli.options import Json
from earteach.cli.output import Output, facts


def info(json: Json = False) -> None:
    """Print versions, devices, cores and paths for a bug report."""
    from earteach.environment import describe

    result = describe()
    Output(json).show(result, facts("earteach", {k: str(v) for k, v in result.items()}))
