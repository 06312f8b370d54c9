"""`earteach prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from earteach.cli.options import FitChoice, Json, typed
from earteach.cli.output import Output, facts, progress_bar, table

if TYPE_CHECKING:
    from earteach.data.prepare import Prepared

_SHOWN = 10
_OF_PHOTOGRAPHS = (
    "boxes", "category", "landmarks", "margin", "whole", "fit", "side", "side_pattern", "group_by",
    "group_pattern",
)  # fmt: skip
_EARS, _PEOPLE = "Ears in the photographs", "Training and validation"

Source = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Argument(help="Folder of photographs, with sub-folders or not.", metavar="SOURCE"),
]
Out = Annotated[Path, typer.Option("--out", help="Folder for the arrays.")]
ImageSize = Annotated[
    int, typer.Option("--image-size", help="Side of the images in pixels.", min=16, max=1024)
]
Gray = Annotated[bool, typer.Option("--gray", help="One channel instead of three.")]
Synthetic = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--synthetic", help="Draw this many ears in all, instead of photographs."),
]
Seed = Annotated[
    int,
    typer.Option("--seed", help="Source of the drawn ears and of the split.", min=0, max=2**63 - 1),
]
Boxes = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--boxes",
        help="Where the ears are: a .json (COCO), a .csv (photograph, x, y, w, h), a folder of .xml "
        "(Pascal VOC) or of .txt (YOLO), or an old .pkl.",
        rich_help_panel=_EARS,
    ),
]
Category = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--category",
        help="Regular expression: the categories of boxes that are ears; left out, those named ear.",
        rich_help_panel=_EARS,
    ),
]
LandmarksOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--landmarks",
        help="Landmarks of the photographs: a .csv (name, x0, y0, …; fractions of the sides), "
        "or a folder of .pts files. The box follows from them.",
        rich_help_panel=_EARS,
    ),
]
Margin = Annotated[
    float,
    typer.Option(
        "--margin",
        help="Space around the box, in parts of its longer side.",
        min=0,
        max=2,
        rich_help_panel=_EARS,
    ),
]
Whole = Annotated[
    bool,
    typer.Option(
        "--whole", help="The whole photograph, also with --landmarks.", rich_help_panel=_EARS
    ),
]
SideChoice = Annotated[
    Literal["left", "right", "as-is"],
    typer.Option(
        "--side",
        help="Mirror ears of the other side, where it is known which they are.",
        rich_help_panel=_EARS,
    ),
]
SidePattern = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--side-pattern",
        help="Regular expression on the photograph's path whose first group says left or right, such as "
        "'_(left|right)_'.",
        rich_help_panel=_EARS,
    ),
]
GroupBy = Annotated[
    Literal["file", "folder", "column"],
    typer.Option(
        "--group-by",
        help="What is one person: a photograph, a folder of them, or the column person of --boxes.",
        rich_help_panel=_PEOPLE,
    ),
]
GroupPattern = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--group-pattern",
        help=r"Regular expression on the file name whose first group names the person, such as "
        r"'^(\d+)_'.",
        rich_help_panel=_PEOPLE,
    ),
]
ValFraction = Annotated[
    float,
    typer.Option(
        "--val-fraction", help="Share of the images for validation.", rich_help_panel=_PEOPLE
    ),
]
ValGroups = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--val-groups",
        help="Regular expression: these groups are for validation.",
        rich_help_panel=_PEOPLE,
    ),
]


def prepare(
    context: typer.Context,
    source: Source = None,
    out: Out = Path("data/preprocessed"),
    image_size: ImageSize = 256,
    gray: Gray = False,
    fit: FitChoice = "stretch",
    boxes: Boxes = None,
    category: Category = None,
    landmarks: LandmarksOption = None,
    margin: Margin = 0.15,
    whole: Whole = False,
    side: SideChoice = "as-is",
    side_pattern: SidePattern = None,
    group_by: GroupBy = "file",
    group_pattern: GroupPattern = None,
    val_fraction: ValFraction = 0.15,
    val_groups: ValGroups = None,
    synthetic: Synthetic = None,
    seed: Seed = 42,
    json: Json = False,
) -> None:
    """Turn photographs, or drawn ears, into the training and validation arrays.

    No person is in both: say with --group-by or --group-pattern who is who.

    Stopped, it goes on when the same is typed again.
    """
    if (source is None) == (synthetic is None):
        raise typer.BadParameter("name a folder of photographs, or --synthetic N; one of the two")
    _refuse_pairs(typed(context, context.params))
    from earteach.data.crops import Crop
    from earteach.data.prepare import prepare as core
    from earteach.data.prepare import prepare_drawn
    from earteach.data.split import Split

    split = Split(val_fraction, val_groups, seed)
    with progress_bar("preparing") as progress:
        if source is not None:
            to = None if side == "as-is" else side
            crop = Crop(image_size, gray, fit, margin, whole, to, side_pattern)
            result = core(
                source, out, crop=crop, boxes=boxes, category=category, landmarks=landmarks,
                group_by=group_by, group_pattern=group_pattern, split=split, progress=progress,
            )  # fmt: skip
        else:
            assert synthetic is not None
            result = prepare_drawn(
                synthetic, out, size=image_size, gray=gray, seed=seed, split=split,
                progress=progress,
            )  # fmt: skip
    _show(result, Output(json))


def _refuse_pairs(given: set[str]) -> None:
    """Options of which one would be passed over in silence."""
    pairs = [("synthetic", name) for name in _OF_PHOTOGRAPHS]
    pairs += [("group_pattern", "group_by"), ("val_groups", "val_fraction")]
    for one, other in pairs:
        if {one, other} <= given:
            first, second = (f"--{name.replace('_', '-')}" for name in (one, other))
            raise typer.BadParameter(
                f"{second} has no meaning beside {first}; leave one of them out"
            )
    if "side_pattern" in given and "side" not in given:
        raise typer.BadParameter("--side-pattern says which side an ear is, for --side; add it")


def _show(result: Prepared, output: Output) -> None:
    values = {
        "training": f"{result.train.images:,} images in {result.train.path}",
        "validation": f"{result.val.images:,} images in {result.val.path}",
    }
    if result.without_ears:
        values["left out"] = f"{result.without_ears:,} photographs in which no ear is annotated"
    if result.mirrored or result.side_unknown:
        unknown = f"; {result.side_unknown:,} as they are, of an unknown side"
        values["mirrored"] = f"{result.mirrored:,} images" + (
            unknown if result.side_unknown else ""
        )
    rows = [(str(entry.path), entry.reason) for entry in result.rejected[:_SHOWN]]
    title = f"{len(result.rejected):,} ears or photographs left out"
    rejected = [table(title, "photograph", "why", rows=rows)] if rows else []
    output.show(result, facts("Prepared", values), *rejected)
