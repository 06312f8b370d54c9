"""`earteach probe`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.table import Table

from earteach.cli.options import CheckpointDir, Ckpt, Json, LayoutChoice, found
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
    data: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--data",
            help="An array; left out, the checkpoint's validation array.",
        ),
    ] = None,
    landmarks: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--landmarks",
            help="Landmarks as .npy (N, K, 2), fractions of the images, or as .csv as `prepare` takes "
            "it; left out, the file beside the array.",
        ),
    ] = None,
    identities: Annotated[
        bool, typer.Option("--identities", help="Also tell who is who, by cosine.")
    ] = False,
    groups: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--groups",
            help="Who is who: a .csv with a column `group`, or a regular expression on file names; left "
            "out, the manifest beside the array.",
            metavar="FILE|REGEX",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Source of the folds and of the random weights.", min=0)
    ] = 0,
    layout: LayoutChoice = None,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json: Json = False,
) -> None:
    """Measure what a simple reader learns from codes and features: landmarks, who is who.

    Each beside the same reader on PCA codes, pixels and a network with random weights.
    """
    from earteach.inference.probe import probe as core

    result = core(
        found(ckpt, checkpoint_dir), data, landmarks=landmarks, identities=identities,
        groups=groups, seed=seed, layout=layout, config=config,
    )  # fmt: skip
    Output(json).show(result, *_tables(result))


def _tables(result: Probed) -> list[Table]:
    landmarks = [entry for entry in result.results if entry.probe == "landmarks"]
    identities = [entry for entry in result.results if entry.probe == "identities"]
    return [
        *([_landmark_table(result, landmarks)] if landmarks else []),
        *([_identity_table(result, identities)] if identities else []),
    ]


def _landmark_table(result: Probed, entries: list[ProbeResult]) -> Table:
    rows = [(*_named(entry), *_percent(entry, 2), _below(entry)) for entry in entries]
    return table(
        f"Landmark error in % of the ear's diagonal: {_number(entries[0], result)}",
        "read from", "numbers", "error", "95 % interval", "below PCA's",
        rows=rows,
    )  # fmt: skip


def _identity_table(result: Probed, entries: list[ProbeResult]) -> Table:
    pairs = zip(entries[::2], entries[1::2], strict=True)
    rows = [(*_named(rank1), *_percent(rank1, 1), *_percent(eer, 1)) for rank1, eer in pairs]
    return table(
        f"Who is who, by cosine, in %: {_number(entries[0], result)}",
        "told by", "numbers", "rank-1", "95 % interval", "EER", "95 % interval",
        rows=rows,
    )  # fmt: skip


def _number(entry: ProbeResult, result: Probed) -> str:
    return f"{entry.images:,} images of {result.groups:,} people in {result.data}"


def _named(entry: ProbeResult) -> tuple[str, str]:
    return _NAMES[entry.features], f"{entry.length:,}"


def _percent(entry: ProbeResult, digits: int) -> tuple[str, str]:
    shown = f"{100 * entry.value:.{digits}f}"
    if entry.interval is None:
        return shown, _NONE
    low, high = entry.interval
    return shown, f"{100 * low:.{digits}f} to {100 * high:.{digits}f}"


def _below(entry: ProbeResult) -> str:
    if entry.below_pca is None:
        return _NONE
    if entry.below_pca_interval is None:
        return f"{100 * entry.below_pca:.0f} %"
    low, high = entry.below_pca_interval
    return f"{100 * entry.below_pca:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
