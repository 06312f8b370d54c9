"""`earteach inspect-data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earteach.cli.options import Json
from earteach.cli.output import Output


def inspect_data(
    train: Annotated[
        Path, typer.Argument(help="Training array.", show_default=True, metavar="[TRAIN]")
    ] = Path("data/preprocessed/train_teacher.npy"),
    json: Json = False,
) -> None:
    """Show what is in the arrays and what is wrong with them."""
    Output(json).show({})
