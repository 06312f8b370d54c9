"""`earteach probe`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from earteach.cli.options import CheckpointDir, Ckpt, DataArray, Json, LayoutChoice
from earteach.cli.output import Output, table
from earteach.config import InferenceConfig

if TYPE_CHECKING:
    from earteach.inference.probe import Probed, ProbeResult

_NAMES = {
    "codes": "codes",
    "pooled": "pooled features",
    "pca": "PCA codes",
    "pixels": "pixels, 16×16",
    "random_codes": "codes, untrained",
    "random_pooled": "pooled, untrained",
}
_NONE = "–"


def probe(
    config: InferenceConfig,
    ckpt: Ckpt = None,
    data: DataArray = None,
    landmarks: Annotated[
        Path | None,
        typer.Option(
            "--landmarks",
            help="Landmarks: .npy (N, K, 2) as fractions of the image, or .csv as for `prepare`; "
            "defaults to the file beside the array.",
        ),
    ] = None,
    identities: Annotated[
        bool, typer.Option("--identities", help="Also measure how well people are recognised.")
    ] = False,
    groups: Annotated[
        str | None,
        typer.Option(
            "--groups",
            help="Each image's person: a .csv with the columns `row` (from 0) and `group`, or a regular "
            "expression for file names; defaults to the manifest beside the array.",
            metavar="FILE|REGEX",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Seed of the folds and of the random network.", min=0)
    ] = 0,
    layout: LayoutChoice = None,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json: Json = False,
) -> None:
    """Measure how well codes and features predict landmarks (linearly) and identify people.

    PCA codes, pixels and a network with random weights are probed for comparison.
    """
    from earteach.inference.probe import probe as core

    result = core(
        ckpt or checkpoint_dir, data, landmarks=landmarks, identities=identities,
        groups=groups, seed=seed, layout=layout, config=config,
    )  # fmt: skip
    Output(json).show(result, *_tables(result))


def _tables(result: Probed) -> Iterator[Table]:
    entries = {
        metric: [entry for entry in result.results if entry.metric == metric]
        for metric in ("error", "rank1", "eer")
    }
    if errors := entries["error"]:
        yield table(
            f"Landmark error in % of the ear's diagonal: {_data(errors[0], result)}",
            "features", "values", "error", "95 % interval", "below PCA's",
            rows=[(*_names(entry), *_percent(entry, 2), _below_pca(entry)) for entry in errors],
        )  # fmt: skip
    if ranks := entries["rank1"]:
        yield table(
            f"Recognition of people by cosine, in %: {_data(ranks[0], result)}",
            "features", "values", "rank-1", "95 % interval", "EER", "95 % interval",
            rows=[(*_names(rank), *_percent(rank, 1), *_percent(eer, 1))
                  for rank, eer in zip(ranks, entries["eer"], strict=True)],
        )  # fmt: skip


def _data(entry: ProbeResult, result: Probed) -> str:
    return f"{entry.images:,} images of {result.groups:,} people in {result.data}"


def _names(entry: ProbeResult) -> tuple[str, str]:
    return _NAMES[entry.features], f"{entry.length:,}"


def _percent(entry: ProbeResult, digits: int) -> tuple[str, str]:
    ends = [f"{100 * end:.{digits}f}" for end in entry.interval or ()]
    return f"{100 * entry.value:.{digits}f}", " to ".join(ends) or _NONE


def _below_pca(entry: ProbeResult) -> str:
    if entry.below_pca is None:
        return _NONE
    ends = " to ".join(f"{100 * end:.0f}" for end in entry.below_pca_interval or ())
    return f"{100 * entry.below_pca:.0f} %" + (f" ({ends})" if ends else "")
