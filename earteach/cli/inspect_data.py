"""`earteach inspect-data`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import RenderableType
from rich.markup import escape

from earteach.cli.options import Json, LayoutChoice
from earteach.cli.output import Output, facts, table
from earteach.config import DataConfig, Layout

if TYPE_CHECKING:
    from earteach.inspection import ArrayReport, Inspection

_DEFAULTS = DataConfig()
_NAMED_INDICES = 8


def inspect_data(
    train: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(
            help=f"Training array; without any, {_DEFAULTS.train_data} and its validation array.",
            metavar="TRAIN",
        ),
    ] = None,
    val: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(help="Validation array.", metavar="VAL"),
    ] = None,
    layout: LayoutChoice = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", help="Folder for contact sheets as PNGs."),
    ] = None,
    augmented: Annotated[
        bool,
        typer.Option(
            "--augmented",
            help="Also draw 64 training images as training sees them (in --out, or ./inspection).",
        ),
    ] = False,
    image_size: Annotated[
        int, typer.Option("--image-size", help="Side of the images on the sheets.", min=16, max=512)
    ] = 128,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 where there are errors.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what is in the arrays and what is wrong with them, before training on them."""
    from earteach.inspection import inspect_data as core

    if train is None:
        train, val = _DEFAULTS.train_data, _DEFAULTS.val_data
    result = core(train, val, layout=layout)
    folder = out or Path("inspection")
    sheets = _sheets(train, val, layout, folder, image_size, augmented) if out or augmented else {}
    Output(json).show(result, *_parts(result, sheets))
    if strict and any(problem.severity == "error" for problem in result.problems):
        raise typer.Exit(1)


def _sheets(
    train: Path, val: Path | None, layout: Layout | None, folder: Path, size: int, augmented: bool
) -> dict[str, str]:
    from earteach.images import make_folder, write_png
    from earteach.inspection import augmented_sheet, contact_sheet

    make_folder(folder)
    pictures = {"training": ("train.png", contact_sheet(train, layout=layout, size=size))}
    if val is not None:
        pictures["validation"] = ("val.png", contact_sheet(val, layout=layout, size=size))
    if augmented:
        sheet = augmented_sheet(train, layout=layout, size=size)
        pictures["augmented"] = ("augmented.png", sheet)
    for name, picture in pictures.values():
        write_png(folder / name, picture)
    return {what: str(folder / name) for what, (name, _) in pictures.items()}


def _parts(result: Inspection, sheets: dict[str, str]) -> list[RenderableType]:
    reports = [result.train, *([result.val] if result.val else [])]
    columns = ["training", "validation"][: len(reports)]
    rows = [
        (name, *(values[place] for values in map(_described, reports)))
        for place, name in enumerate(_NAMES)
    ]
    parts: list[RenderableType] = [table("What is in the arrays", "", *columns, rows=rows)]
    if result.val is not None:
        leakage = result.leakage
        parts.append(
            f"validation images that are in training: {leakage.exact} exactly, {leakage.near} nearly"
        )
    parts.extend(_problems(result))
    if sheets:
        parts.append(facts("Sheets", sheets))
    return parts


_NAMES = (
    "file", "images", "size", "layout", "type", "range", "mean ± deviation",
    "NaN or infinite", "constant", "duplicates",
)  # fmt: skip


def _described(report: ArrayReport) -> tuple[str, ...]:
    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.4g}"

    return (
        report.path,
        f"{report.images:,}",
        f"{report.width}×{report.height}×{report.channels}",
        report.layout,
        report.dtype,
        f"{number(report.min)} to {number(report.max)}",
        f"{number(report.mean)} ± {number(report.std)}",
        str(report.non_finite),
        str(report.constant),
        str(report.duplicates),
    )


def _problems(result: Inspection) -> list[str]:
    if not result.problems:
        return ["[green]nothing is wrong with them[/]"]
    styles = {"error": "bold red", "warning": "yellow"}
    return [
        f"[{styles[problem.severity]}]{problem.severity}:[/] {escape(problem.message)}"
        for problem in result.problems
    ]
