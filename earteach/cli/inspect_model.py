"""`earteach inspect-model`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from earteach.cli.options import Given, Json, ckpt_argument
from earteach.cli.output import Output, facts, table
from earteach.config import ModelConfig
from earteach.errors import EarTeachError

if TYPE_CHECKING:
    from earteach.model.vae import ConvVAE


def inspect_model(
    model: Given[ModelConfig],
    ckpt: Annotated[
        Path | None,
        ckpt_argument("A checkpoint. Default: a model built from the options."),
    ] = None,
    json: Json = False,
) -> None:
    """Show the layers, shapes, parameters and multiply-adds of a model.

    The model comes from a checkpoint or is built from the options.
    """
    if ckpt is not None and model:
        raise EarTeachError(
            f"{ckpt}: defines its model; leave out --{next(iter(model)).replace('_', '-')}"
        )
    from earteach.model.summary import summarise

    result = summarise(_network(ckpt, ModelConfig(**model)))
    rows = []
    for layer in result.layers:
        shape = "×".join(map(str, layer.shape))
        rows.append((layer.name, shape, f"{layer.parameters:,}", f"{layer.multiply_adds:,}"))
    values = {name: f"{count:,} parameters" for name, count in result.parts.items()}
    values["in all"] = f"{result.parameters:,} parameters, {result.multiply_adds:,} multiply-adds"
    values["code"] = f"{result.latent_dim} dimensions"
    size = result.image_size
    Output(json).show(
        result,
        table(
            f"EarVAE for {size}×{size}×{result.in_channels}",
            "layer", "shape", "parameters", "multiply-adds",
            rows=rows,
        ),
        facts("In all", values),
    )  # fmt: skip


def _network(ckpt: Path | None, config: ModelConfig) -> ConvVAE:
    import torch

    from earteach import checkpoint
    from earteach.model.build import build_model

    if ckpt is not None:
        return checkpoint.load(ckpt)
    with torch.device("meta"):  # without values, so that any size can be asked for
        return build_model(config)
