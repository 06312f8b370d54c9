"""`earteach sample`."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from earteach.cli.options import CheckpointDir, Ckpt, Json, Seed, Show
from earteach.cli.output import Output, facts, pictures
from earteach.config import InferenceConfig, Sampler

if TYPE_CHECKING:
    from earteach.inference.latent_traversal import Interpolation, Traversal
    from earteach.inference.sample import Samples
    from earteach.metrics.gist import Similarity


Number = Annotated[
    int | None,
    typer.Option(
        "--number",
        "-n",
        help="Number of ears; with --traverse, the number in each row.",
        min=1,
        show_default="8; 7 with --traverse",
    ),
]
SamplerChoice = Annotated[
    Sampler | None,
    typer.Option(
        "--sampler",
        help="Draw codes from a Gaussian mixture fitted to the training images' codes (stored "
        "beside the checkpoint), as blends of two similar training images, or from the prior.",
        show_default="gmm",
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        help="Below 1, ears are more usual and more alike; above 1, less. At most 2.",
        show_default="1",
    ),
]
Check = Annotated[
    bool,
    typer.Option(
        "--check",
        help="Measure how near the ears are to validation images, beside training images. Needs at "
        "least 100 of each.",
    ),
]
Ends = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--interpolate",
        help="Interpolate between two ears: images, or row numbers of the validation array.",
        metavar="A B",
    ),
]
Directions = Annotated[
    int | None,
    typer.Option(
        "--traverse",
        help="Move the mean ear along the K directions in which ears vary most, from -3 to +3 "
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
    temperature: Temperature = None,
    interpolate: Ends = None,
    traverse: Directions = None,
    nearest: Annotated[
        bool,
        typer.Option(
            "--nearest/--no-nearest",
            help="Find the training image nearest to each new ear.",
        ),
    ] = True,
    check: Check = False,
    show: Show = False,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json: Json = False,
) -> None:
    """Write PNGs of new ears, of interpolations between ears, or of latent traversals.

    They are blurred without the second decoder that `train` and `sharpen` train.
    """
    for_new_ears = {"--sampler": sampler, "--temperature": temperature, "--check": check or None}
    others = {"--interpolate": interpolate, "--traverse": traverse}
    given = [name for name, value in {**for_new_ears, **others}.items() if value is not None]
    if len(given) > 1 and given[-1] in others:
        raise typer.BadParameter(f"{' and '.join(given)} cannot be used together")
    path = ckpt or checkpoint_dir
    result: Samples | Interpolation | Traversal
    from earteach.inference import latent_traversal
    from earteach.inference.sample import sample as core

    if interpolate is not None:
        ends = _end(interpolate[0]), _end(interpolate[1])
        result = latent_traversal.interpolate(path, out, ends, number=number or 8, config=config)
        table = facts(f"Interpolation by {result.checkpoint}", _interpolation(result))
    elif traverse is not None:
        result = latent_traversal.traverse(path, out, traverse, number=number or 7, config=config)
        table = facts(f"Latent traversal of {result.checkpoint}", _traversal(result))
    else:
        result = core(
            path,
            out,
            number=number or 8,
            seed=seed,
            sampler=sampler,
            temperature=1.0 if temperature is None else temperature,
            nearest=nearest,
            check=check,
            config=config,
        )
        title = f"{len(result.images)} new ears from {result.checkpoint}"
        table = facts(title, _samples(result))
    Output(json).show(result, *(pictures([result.grid]) if show and not json else []), table)


def _end(text: str) -> Path | int:
    """A row number or a path; `./12` is a file whose name is a number."""
    return int(text) if text.isdecimal() else Path(text)


def _files(result: Samples | Interpolation | Traversal, grid: str = "") -> dict[str, str]:
    ears = f"{result.images[0]} to {result.images[-1].name}"
    return {"ears": ears, "grid": f"{result.grid}{grid}"}


def _samples(result: Samples) -> dict[str, str]:
    values = _files(result, ", each ear above its nearest training image" if result.nearest else "")
    warmth = "" if result.temperature == 1 else f", temperature {result.temperature:g}"
    values["drawn from"] = f"{result.drawn_from}, seed {result.seed}{warmth}"
    if result.nearest is not None:
        distances = [match.distance for match in result.nearest]
        values["nearest training image"] = (
            f"median distance {median(distances):.3f}, minimum {min(distances):.3f} (RMSE)"
        )
    if result.validation_distance is not None:
        values["for validation images"] = f"median distance {result.validation_distance:.3f}"
    if result.check is not None:
        values[f"to {result.check.images} validation images"] = _similarity(result.check.samples)
        values["of as many training images"] = _similarity(result.check.training_images)
    return values


def _similarity(measured: Similarity) -> str:
    return (
        f"Fréchet distance {measured.frechet:.3f}, kernel distance {measured.kernel:.5f}, "
        f"precision {measured.precision:.2f}, recall {measured.recall:.2f} (GIST)"
    )


def _interpolation(result: Interpolation) -> dict[str, str]:
    first, second = result.ends
    mirrored = ", mirrored to the same side" if result.turned else ""
    return {**_files(result), "from": first, "to": f"{second}{mirrored}"}


def _traversal(result: Traversal) -> dict[str, str]:
    return {
        **_files(result, ", a row for each direction"),
        "along each": f"{result.sigmas[0]:+g} to {result.sigmas[-1]:+g} standard deviations",
        "share of the variance": ", ".join(f"{each.share:.1%}" for each in result.directions),
    }
