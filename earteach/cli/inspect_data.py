"""`earteach inspect-data`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType
from rich.markup import escape

from earteach.cli.options import Json, LayoutChoice, one_of
from earteach.cli.output import Output, facts, table
from earteach.config import DataConfig, KLDConfig, ModelConfig, Reduction, Strength, TrainConfig

if TYPE_CHECKING:
    from earteach.inspection import ArrayReport, Forecast, Inspection

_DATA, _MODEL, _KLD = DataConfig(), ModelConfig(), KLDConfig()
_TRAIN_HELP = f"Training array. Default: {_DATA.train_data}, with its validation array."


def inspect_data(
    train: Annotated[Path | None, typer.Argument(help=_TRAIN_HELP, metavar="TRAIN")] = None,
    val: Annotated[Path | None, typer.Argument(help="Validation array.", metavar="VAL")] = None,
    layout: LayoutChoice = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for plots and contact sheets of sample, problem and duplicate images.",
        ),
    ] = None,
    augmented: Annotated[
        bool,
        typer.Option(
            "--augmented",
            help="Also write 64 augmented training images (see --augmentation) to --out, or to "
            "./inspection.",
        ),
    ] = False,
    augmentation: Annotated[Strength, one_of(DataConfig, "augmentation")] = _DATA.augmentation,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with code 1 if there are errors.")
    ] = False,
    forecast: Annotated[
        bool,
        typer.Option(
            "--forecast/--no-forecast",
            help="Fit the PCA baseline of `eval` and predict what training with these options can "
            "achieve.",
        ),
    ] = True,
    image_size: Annotated[int, one_of(ModelConfig, "image_size")] = _MODEL.image_size,
    latent_dim: Annotated[int, one_of(ModelConfig, "latent_dim")] = _MODEL.latent_dim,
    kld_weight: Annotated[float, one_of(KLDConfig, "kld_weight")] = _KLD.kld_weight,
    kld_reduction: Annotated[Reduction, one_of(KLDConfig, "kld_reduction")] = _KLD.kld_reduction,
    json: Json = False,
) -> None:
    """Show what the arrays contain, and report problems before you train."""
    from earteach.inspection import SHEET_SIZE
    from earteach.inspection import inspect_data as core

    config = TrainConfig(
        model=ModelConfig(image_size=image_size, latent_dim=latent_dim),
        kld=KLDConfig(kld_weight=kld_weight, kld_reduction=kld_reduction),
    )
    if train is None:
        train, val = _DATA.train_data, _DATA.val_data
    result = core(
        train, val, layout=layout, config=config if forecast else None,
        out=out or (Path("inspection") if augmented else None),
        sheet_size=min(image_size, SHEET_SIZE), augmented=augmentation if augmented else None,
    )  # fmt: skip
    Output(json).show(result, *_parts(result, config))
    if strict and any(problem.severity == "error" for problem in result.problems):
        raise typer.Exit(1)


def _parts(result: Inspection, config: TrainConfig) -> list[RenderableType]:
    reports = {"training": result.train}
    if result.val is not None:
        reports["validation"] = result.val
    described = [_describe(report) for report in reports.values()]
    rows = [(label, *(values[label] for values in described)) for label in described[0]]
    parts: list[RenderableType] = [table("What is in the arrays", "", *reports, rows=rows)]
    if result.val is not None:
        exact, near = result.leakage.exact, result.leakage.near
        copies = f"{exact} exact copies, {near} near copies"
        parts.append(f"validation images also in training: {copies}")
    if result.forecast is not None:
        size = result.forecast.image_size
        parts.append(facts(f"Forecast at {size}×{size}", _forecast(result.forecast, config.kld)))
    styles = {"error": "bold red", "warning": "yellow"}
    parts += [
        f"[{styles[problem.severity]}]{problem.severity}:[/] {escape(problem.message)}"
        for problem in result.problems
    ] or ["[green]no problems found[/]"]
    if result.pictures:
        parts.append(facts("Pictures", {name: str(path) for name, path in result.pictures.items()}))
    return parts


def _forecast(forecast: Forecast, kld: KLDConfig) -> dict[str, str]:
    components, number = forecast.components, f"{forecast.psnr_images:,}"
    measured_on = {
        "val": f"{number} validation images",
        "train": f"{number} training images; expect less on unseen ears",
    }[forecast.psnr_of]
    alive = forecast.alive_units
    note = "" if alive <= components else f", extrapolated beyond {components}"
    return {
        "PCA": f"{components} components: {forecast.psnr:.2f} dB on {measured_on}",
        "latent units": f"about {alive} of {forecast.latent_dim} stay alive at "
        f"--kld-weight {kld.kld_weight:g}, --kld-reduction {kld.kld_reduction} "
        f"(β {_number(forecast.elbo_beta)} in ELBO units){note}",
    }


def _number(value: float | None) -> str:
    return f"{value:.4g}" if value is not None and math.isfinite(value) else "–"


def _describe(report: ArrayReport) -> dict[str, str]:
    return {
        "file": report.path,
        "images": f"{report.images:,}",
        "size": f"{report.width}×{report.height}×{report.channels}",
        "layout": report.layout,
        "type": report.dtype,
        "range": f"{_number(report.min)} to {_number(report.max)}",
        "mean ± deviation": f"{_number(report.mean)} ± {_number(report.std)}",
        "of each channel in [0, 1]": _channels(report),
        "NaN or infinite": str(report.non_finite),
        "constant": str(report.constant),
        "duplicates": str(report.duplicates),
    }


def _channels(report: ArrayReport) -> str:
    if report.channel_means is None or report.channel_stds is None:
        return "–"
    names = ("red ", "green ", "blue ") if report.channels == 3 else ("",)
    values = zip(names, report.channel_means, report.channel_stds, strict=True)
    return "\n".join(f"{name}{mean:.3f} ± {std:.3f}" for name, mean, std in values)
