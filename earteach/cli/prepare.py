"""`earteach prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from earteach.cli.options import FitChoice, Json, typed
from earteach.cli.output import Output, facts, note, progress_bar, table

if TYPE_CHECKING:
    from earteach.data.prepare import Prepared

_SHOWN = 10
_FOR_PHOTOGRAPHS = (
    "boxes", "category", "landmarks", "margin", "whole", "fit", "side", "side_pattern", "group_by",
    "group_pattern",
)  # fmt: skip


def _ears(name: str, help: str, **limits: Any) -> Any:
    return typer.Option(name, help=help, rich_help_panel="Ears in the photographs", **limits)


def _people(name: str, help: str) -> Any:
    return typer.Option(name, help=help, rich_help_panel="Training and validation")


_SOURCE = typer.Argument(help="Folder of photographs; subfolders are read too.", metavar="SOURCE")
_OUT = typer.Option("--out", help="Folder for the arrays.")
_IMAGE_SIZE = typer.Option("--image-size", help="Height and width of the images.", min=16, max=1024)
_GRAY = typer.Option("--gray", help="Write gray images, with one channel.")
_SYNTHETIC = typer.Option(
    "--synthetic", help="Draw this many ears in total instead of reading photographs."
)
_SEED = typer.Option(
    "--seed", help="Seed of the drawn ears and of the split.", min=0, max=2**63 - 1
)
_BOXES = _ears(
    "--boxes",
    "Where the ears are: a .json (COCO, LabelMe, Label Studio, VIA), a .csv (photograph, x, y, w, h), "
    "a .xml (CVAT), or a folder of .xml (Pascal VOC), .txt (YOLO) or .json (LabelMe).",
)
_CATEGORY = _ears(
    "--category",
    "Regular expression for the box categories that are ears. Default: categories named ear.",
)
_LANDMARKS = _ears(
    "--landmarks",
    "Landmarks of the photographs: a .csv (name, x0, y0, …; fractions of width and height), or a "
    "folder of .pts files. Without --boxes, the landmarks define the box.",
)
_MARGIN = _ears(
    "--margin", "Space on each side of the box, as a fraction of its longer side.", min=0, max=2
)
_WHOLE = _ears("--whole", "Keep the whole photograph, even with --landmarks.")
_SIDE = _ears(
    "--side", "Mirror ears whose side is known, so that all are left or all are right ears."
)
_SIDE_PATTERN = _ears(
    "--side-pattern",
    "Regular expression for the photograph's path; its first group is left or right, as in "
    "'_(left|right)_'.",
)
_GROUP_BY = _people(
    "--group-by",
    "What identifies a person: the file, its folder, or the column `person` of --boxes.",
)
_GROUP_PATTERN = _people(
    "--group-pattern",
    r"Regular expression for the file name; its first group is the person, as in '^(\d+)_'.",
)
_VAL_FRACTION = _people("--val-fraction", "Fraction of the images used for validation.")
_VAL_GROUPS = _people("--val-groups", "Regular expression for the groups used for validation.")


def prepare(
    context: typer.Context,
    source: Annotated[Path | None, _SOURCE] = None,
    out: Annotated[Path, _OUT] = Path("data/preprocessed"),
    image_size: Annotated[int, _IMAGE_SIZE] = 256,
    gray: Annotated[bool, _GRAY] = False,
    fit: FitChoice = "stretch",
    boxes: Annotated[Path | None, _BOXES] = None,
    category: Annotated[str | None, _CATEGORY] = None,
    landmarks: Annotated[Path | None, _LANDMARKS] = None,
    margin: Annotated[float, _MARGIN] = 0.15,
    whole: Annotated[bool, _WHOLE] = False,
    side: Annotated[Literal["left", "right", "as-is"], _SIDE] = "as-is",
    side_pattern: Annotated[str | None, _SIDE_PATTERN] = None,
    group_by: Annotated[Literal["file", "folder", "column"], _GROUP_BY] = "file",
    group_pattern: Annotated[str | None, _GROUP_PATTERN] = None,
    val_fraction: Annotated[float, _VAL_FRACTION] = 0.15,
    val_groups: Annotated[str | None, _VAL_GROUPS] = None,
    synthetic: Annotated[int | None, _SYNTHETIC] = None,
    seed: Annotated[int, _SEED] = 42,
    json: Json = False,
) -> None:
    """Turn photographs or synthetic ears into training and validation arrays.

    With --group-by or --group-pattern, no person is in both arrays.

    An interrupted run leaves existing arrays unchanged; repeat the command to start over.
    """
    if (source is None) == (synthetic is None):
        raise typer.BadParameter("give either a folder of photographs or --synthetic N")
    _refuse_pairs(typed(context, context.params))
    from earteach.data.crops import Crop
    from earteach.data.prepare import prepare as core
    from earteach.data.prepare import prepare_drawn
    from earteach.data.split import Split

    split = Split(val_fraction, val_groups, seed)
    with progress_bar("preparing") as progress:
        if source is not None:
            target_side = None if side == "as-is" else side
            crop = Crop(image_size, gray, fit, margin, whole, target_side, side_pattern)
            result = core(
                source, out, crop=crop, boxes=boxes, category=category, landmarks=landmarks,
                group_by=group_by, group_pattern=group_pattern, split=split, progress=progress,
            )  # fmt: skip
            _warn_of_copies(result)
        else:
            assert synthetic is not None
            result = prepare_drawn(
                synthetic, out, size=image_size, gray=gray, seed=seed, split=split,
                progress=progress,
            )  # fmt: skip
    _show(result, Output(json))


def _warn_of_copies(result: Prepared) -> None:
    """The same photograph under two names makes two people, one of whom may be in each array."""
    from earteach.inspection.inspect_data import inspect_data

    copies = inspect_data(result.train.path, result.val.path).leakage
    if copies.exact or copies.near:
        note(
            f"copies of training images are in validation: {copies.exact} exact, {copies.near} near; "
            f"list them with `earteach inspect-data {result.train.path} {result.val.path}`, and keep "
            "them together with --group-by or --group-pattern"
        )


def _refuse_pairs(given: set[str]) -> None:
    """Refuse options of which one would be ignored."""
    pairs = [("synthetic", name) for name in _FOR_PHOTOGRAPHS]
    pairs += [("group_pattern", "group_by"), ("val_groups", "val_fraction")]
    for one, other in pairs:
        if {one, other} <= given:
            first, second = (f"--{name.replace('_', '-')}" for name in (one, other))
            raise typer.BadParameter(f"{second} cannot be used with {first}; leave one of them out")
    if "side_pattern" in given and "side" not in given:
        raise typer.BadParameter("--side-pattern has no effect without --side; add --side")


def _show(result: Prepared, output: Output) -> None:
    values = {}
    if result.photographs:
        values["found"] = (
            f"photographs: {result.photographs:,}; ears: {result.ears:,}; people: {result.people:,}"
        )
    values["training"] = f"{result.train.images:,} images in {result.train.path}"
    values["validation"] = f"{result.val.images:,} images in {result.val.path}"
    if result.without_ears:
        values["left out"] = f"{result.without_ears:,} photographs in which no ear is annotated"
    if result.mirrored or result.side_unknown:
        values["mirrored"] = f"{result.mirrored:,} images"
        if result.side_unknown:
            values["mirrored"] += f"; {result.side_unknown:,} of unknown side stay as they are"
    rows = [(str(entry.path), entry.reason) for entry in result.rejected[:_SHOWN]]
    if len(result.rejected) > _SHOWN:
        rows.append((f"and {len(result.rejected) - _SHOWN:,} more", "--json lists them all"))
    title = f"{len(result.rejected):,} left out"
    rejected = [table(title, "file or folder", "why", rows=rows)] if rows else []
    output.show(result, facts("Prepared", values), *rejected)
