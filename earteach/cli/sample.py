"""`earteach sample`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from earteach.cli.options import CheckpointDir, Ckpt, Json, Seed, Show, found
from earteach.cli.output import Output, facts, pictures
from earteach.config import InferenceConfig

if TYPE_CHECKING:
    from earteach.inference.latent_traversal import Interpolation, Traversal
    from earteach.inference.sample import Samples


Number = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--number",
        "-n",
        help="How many ears; with --traverse, in each row.",
        min=1,
        show_default="8; 7 with --traverse",
    ),
]
SamplerChoice = Annotated[
    Optional[Literal["gmm", "prior"]],  # noqa: UP045
    typer.Option(
        "--sampler",
        help="Draw codes from a Gaussian mixture of the training images' codes, which is kept "
        "beside the checkpoint, or from the prior.",
        show_default="gmm",
    ),
]
Ends = Annotated[
    Optional[tuple[str, str]],  # noqa: UP045
    typer.Option(
        "--interpolate",
        help="Go from one ear to another: two images, or row numbers of the validation array.",
        metavar="A B",
    ),
]
Directions = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--traverse",
        help="Move the mean ear along the K directions in which ears differ most, from -3 to +3 "
        "standard deviations.",
        metavar="K",
        min=1,
    ),
]


def sample(
    config: InferenceConfig,
    out: Annotated[Path, typer.Option("--out", help="Folder for the PNGs.")],
    ckpt: Ckpt = None,
    number: Number = None,
    seed: Seed = 42,
    sampler: SamplerChoice = None,
    interpolate: Ends = None,
    traverse: Directions = None,
    nearest: Annotated[
        bool,
        typer.Option(
            "--nearest/--no-nearest",
            help="Look for the training image that is nearest to each new ear.",
        ),
    ] = True,
    show: Show = False,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json: Json = False,
) -> None:
    """Draw new ears from what a model learned, or walk between ears: PNGs and one grid."""
    chosen = {"--sampler": sampler, "--interpolate": interpolate, "--traverse": traverse}
    named = [option for option, value in chosen.items() if value is not None]
    if len(named) > 1:
        raise typer.BadParameter(f"{' and '.join(named)} exclude each other; name one of them")
    path = found(ckpt, checkpoint_dir)
    result: Samples | Interpolation | Traversal
    if interpolate is not None:
        from earteach.inference.latent_traversal import interpolate as between

        ends = _end(interpolate[0]), _end(interpolate[1])
        result = way = between(path, out, ends, number=number or 8, config=config)
        told = facts(f"From ear to ear by {way.checkpoint}", _on_the_way(way))
    elif traverse is not None:
        from earteach.inference.latent_traversal import traverse as along

        result = moved = along(path, out, traverse, number=number or 7, config=config)
        told = facts(f"How ears of {moved.checkpoint} differ", _moved(moved))
    else:
        from earteach.inference.sample import sample as core

        result = drawn = core(
            path,
            out,
            number=number or 8,
            seed=seed,
            sampler=sampler,
            nearest=nearest,
            config=config,
        )
        told = facts(f"{len(drawn.images)} new ears of {drawn.checkpoint}", _drawn(drawn))
    Output(json).show(result, *(pictures([result.grid]) if show and not json else []), told)


def _end(text: str) -> Path | int:
    """A row number, or a path; a file whose name is a number is told by a folder: ./12."""
    return int(text) if text.isdecimal() else Path(text)


def _drawn(result: Samples) -> dict[str, str]:
    source = "the prior"
    if result.components is not None:
        plural = "s" if result.components > 1 else ""
        source = f"a mixture of {result.components} Gaussian{plural}, fitted to the training codes"
    values = {
        "ears": f"{result.images[0]} to {result.images[-1].name}",
        "grid": str(result.grid),
        "drawn from": f"{source}, seed {result.seed}",
    }
    if result.nearest is not None:
        values["grid"] += ", each ear over its nearest training image"
        from statistics import median

        apart = [entry.distance for entry in result.nearest]
        values["nearest training image"] = (
            f"{median(apart):.3f} away in the median, {min(apart):.3f} at least (RMSE)"
        )
    if result.validation_distance is not None:
        values["of a validation image"] = f"{result.validation_distance:.3f} away in the median"
    return values


def _on_the_way(result: Interpolation) -> dict[str, str]:
    first, second = result.ends
    return {
        "ears": f"{result.images[0]} to {result.images[-1].name}",
        "grid": str(result.grid),
        "from": first,
        "to": f"{second}, mirrored to the same side" if result.turned else second,
    }


def _moved(result: Traversal) -> dict[str, str]:
    shares = ", ".join(f"{direction.share:.1%}" for direction in result.directions)
    return {
        "ears": f"{result.images[0]} to {result.images[-1].name}",
        "grid": f"{result.grid}, a row for each direction",
        "along each": f"{result.sigmas[0]:+g} to {result.sigmas[-1]:+g} standard deviations",
        "of the pictures' variance": shares,
    }
