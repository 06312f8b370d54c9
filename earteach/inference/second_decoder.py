"""The second decoder of a checkpoint, which `sharpen` trains and new ears are decoded with."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn

from earteach.inference.loaded_model import LoadedModel
from earteach.metrics.npz_cache import load_npz, write_npz
from earteach.model.discriminator import Discriminator
from earteach.model.encoder_decoder import Decoder
from earteach.model.vae import ConvVAE
from earteach.run_files import SECOND_DECODER

# Always judged together, so that the ears do not depend on how many are asked for.
_PAIRS = 16
_VERSION = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SecondDecoder:
    """A network whose decoder is the second one, and the discriminator that it was trained against."""

    network: ConvVAE
    discriminator: Discriminator

    def better_of_two(
        self, codes: Iterator[torch.Tensor], model: LoadedModel
    ) -> Iterator[torch.Tensor]:
        """Of every two codes, the one whose ear looks more real to the discriminator.

        A simple form of discriminator rejection sampling (Azadi et al. 2019,
        https://arxiv.org/abs/1810.06758).
        """
        while True:
            batch = torch.stack(list(islice(codes, 2 * _PAIRS)))
            with model.running():
                ears = self.network.decode(batch.to(model.device))
                logits = self.discriminator(ears)[0].float().view(_PAIRS, 2)
            second: list[bool] = (logits[:, 1] > logits[:, 0]).tolist()
            yield from (batch[2 * pair + better] for pair, better in enumerate(second))


def load_second_decoder(model: LoadedModel) -> SecondDecoder | None:
    """None, with a note, if none is stored beside the checkpoint, or one of other weights."""
    source, path = model.checkpoint.path, _path(model)
    if not path.exists():
        if model.checkpoint.part == "full":
            _log.info(
                "without a second decoder, new ears are blurred; `earteach sharpen %s` trains one",
                source,
            )
        return None
    if (arrays := load_npz(path, _key(model))) is None:
        _log.info("%s: does not fit these weights; run `earteach sharpen %s` again", path, source)
        return None
    network = copy.deepcopy(model.network)
    with torch.random.fork_rng(devices=[]):  # its first weights are replaced
        discriminator = Discriminator(network.in_channels, network.image_size).to(model.device)
    parts = _parts(network.decoder, discriminator)
    parts.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return SecondDecoder(network, discriminator.eval())


def second_decoder_path(model: LoadedModel) -> Path | None:
    """The file of a second decoder of these weights beside the checkpoint, if there is one."""
    return None if load_npz(_path(model), _key(model)) is None else _path(model)


def store_second_decoder(
    model: LoadedModel, decoder: Decoder, discriminator: Discriminator
) -> Path:
    """Store both in float16 beside the checkpoint, in place of earlier ones."""
    weights = _parts(decoder, discriminator).state_dict()
    arrays = {name: value.cpu().numpy().astype(np.float16) for name, value in weights.items()}
    write_npz(_path(model), _key(model), **arrays)
    return _path(model)


def _parts(decoder: Decoder, discriminator: Discriminator) -> nn.ModuleDict:
    return nn.ModuleDict({"decoder": decoder, "discriminator": discriminator})


def _path(model: LoadedModel) -> Path:
    return model.checkpoint.path.with_suffix(SECOND_DECODER)


def _key(model: LoadedModel) -> dict[str, object]:
    return {"weights": model.weights_digest(), "version": _VERSION}
