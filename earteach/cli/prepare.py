"""`earteach prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from earteach.cli.options import FitChoice, Json
from earteach.cli.output import Output, facts, progress_bar, table

_SHOWN = 10


GroupBy = Annotated[
    Literal["file", "folder"],
    typer.Option("--group-by", help="What is one person: a photograph, or a folder of them."),
]
GroupPattern = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--group-pattern",
        help=r"Regular expression on the file name whose first group names the person, such as "
        r"'^(\d+)_'.",
    ),
]
ValGroups = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--val-groups", help="Regular expression: these groups are for validation."),
]


def prepare(
    source: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(help="Folder of photographs, with sub-folders or not.", metavar="SOURCE"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the arrays.")] = Path(
        "data/preprocessed"
    ),
    image_size: Annotated[
        int, typer.Option("--image-size", help="Side of the images in pixels.", min=16, max=1024)
    ] = 256,
    gray: Annotated[bool, typer.Option("--gray", help="One channel instead of three.")] = False,
    fit: FitChoice = "stretch",
    group_by: GroupBy = "file",
    group_pattern: GroupPattern = None,
    val_fraction: Annotated[
        float, typer.Option("--val-fraction", help="Share of the images for validation.")
    ] = 0.15,
    val_groups: ValGroups = None,
    landmarks: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--landmarks",
            help="Landmarks of the photographs: a .csv (name, x0, y0, …; fractions of the sides), "
            "or a folder of .pts files.",
        ),
    ] = None,
    synthetic: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--synthetic", help="Draw this many ears in all, instead of photographs."),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", help="Source of the drawn ears and of the split.", min=0, max=2**63 - 1
        ),
    ] = 42,
    json: Json = False,
) -> None:
    """Turn photographs, or drawn ears, into the training and validation arrays.

    No person is in both: say with --group-by or --group-pattern who is who.
    """
    if (source is None) == (synthetic is None):
        raise typer.BadParameter("name a folder of photographs, or --synthetic N; one of the two")
    if landmarks is not None and synthetic is not None:
        raise typer.BadParameter("--landmarks are of photographs; drawn ears have their own")
    from earteach.data.prepare import Split, prepare_drawn
    from earteach.data.prepare import prepare as core

    split = Split(val_fraction, val_groups, seed)
    with progress_bar("preparing") as progress:
        if source is not None:
            result = core(
                source, out, size=image_size, gray=gray, fit=fit, group_by=group_by,
                group_pattern=group_pattern, landmarks=landmarks, split=split, progress=progress,
            )  # fmt: skip
        else:
            assert synthetic is not None
            result = prepare_drawn(
                synthetic, out, size=image_size, gray=gray, seed=seed, split=split,
                progress=progress,
            )  # fmt: skip
    values = {
        "training": f"{result.train.images:,} images in {result.train.path}",
        "validation": f"{result.val.images:,} images in {result.val.path}",
    }
    rows = [(str(entry.path), entry.reason) for entry in result.rejected[:_SHOWN]]
    title = f"{len(result.rejected):,} photographs left out"
    rejected = [table(title, "photograph", "why", rows=rows)] if rows else []
    Output(json).show(result, facts("Prepared", values), *rejected)
