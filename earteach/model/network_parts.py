"""The parts of a network that can be used on their own: encoder, decoder, or the feature maps."""

from __future__ import annotations

from typing import NoReturn

from torch import nn

from earteach.config import ExportPart
from earteach.errors import EarTeachError
from earteach.model.pca_vae import SideClassifierPCAVAE
from earteach.model.vae import ConvVAE

_CODE_MODULES = ("encoder.squeeze", "encoder.to_code", "encoder.coarse_head")
"""What an encoder needs for codes, and not for feature maps."""


def keep_part(network: ConvVAE, part: ExportPart, source: str) -> ConvVAE:
    """Remove the modules that a part does not need, in place.

    Using a removed module is an `EarTeachError` that names `source`. "encoder" keeps what `features`
    needs, too.
    """
    for half, name in _unused(network, part):
        parent, _, child = name.rpartition(".")
        reason = f"{source}: holds the network's {part} but no {half}; export it with --part full"
        setattr(network.get_submodule(parent), child, _MissingPart(reason))
    return network


def _unused(network: ConvVAE, part: ExportPart) -> list[tuple[str, str]]:
    """The modules that a part does not need, each after the half of the network it belongs to."""
    # A mobile encoder works without PCA.
    decoder = ["decoder", "pca"] if isinstance(network, SideClassifierPCAVAE) else ["decoder"]
    unused = {
        "full": [],
        "encoder": [*decoder, "landmark_head"],
        "decoder": ["encoder", "side", "pyramid", "landmark_head"],
        "features": [*decoder, *_CODE_MODULES, "landmark_head"],
        "landmarks": [*decoder, *_CODE_MODULES],
    }[part]
    names = {name for name, _ in network.named_modules()}
    return [("decoder" if name in decoder else "encoder", name) for name in unused if name in names]


class MissingPartError(EarTeachError, AttributeError):
    """An `AttributeError` as well, so that `hasattr` and `copy` work on a `_MissingPart`."""


class _MissingPart(nn.Module):
    """Stands for a removed module; every use of it raises `MissingPartError`."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason

    def forward(self, *_: object) -> NoReturn:
        raise MissingPartError(self.reason)

    def __getattr__(self, name: str) -> NoReturn:
        raise MissingPartError(self.__dict__.get("reason", name))
