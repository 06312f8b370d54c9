"""Where the latent codes of new ears come from: the choices of `--sampler`.

`gmm` draws from a Gaussian mixture of the training images' codes, which is fitted once and stored
beside the checkpoint; `blend` mixes the codes of two similar training images; `prior` draws from a
standard normal distribution. To add a sampler, write the
function that makes its `CodeSource`, and name it in `SAMPLERS` and in `config.Sampler`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, islice

import numpy as np
import torch
from torch.nn import functional

from earteach.config import Sampler
from earteach.data.arrays import EarArray, sampled_rows
from earteach.errors import EarTeachError
from earteach.inference.loaded_model import LoadedModel
from earteach.inference.second_decoder import load_second_decoder
from earteach.metrics.gaussian_mixture import CodeMixture, fit_mixture
from earteach.metrics.npz_cache import load_npz, store_npz
from earteach.model.canonical_side import mirrored
from earteach.model.vae import ConvVAE
from earteach.run_files import MIXTURE

_CACHE_VERSION = 2
_MAX_IMAGES = 4096
# Fixed, as is the precision, so that the stored mixture does not depend on the call that fitted it.
_BATCH_SIZE = 32
_THUMBNAIL_SIZE = 16
# The first decoder draws details fainter than those of photographs. From 1 to 1.15, the Fréchet distance
# to real ears fell by a tenth and the kernel distance by a quarter; 1.3 was no better.
_BLURRED_DETAIL = 1.2
# The ears that look more real are the more usual ones: choose from a wider mixture.
_WIDER = 1.1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CodeSource:
    """What a sampler draws from; `codes` gives endless codes, float32 `(D,)`, for a seed.

    Its second argument is the temperature. `network` decodes the codes.
    """

    name: Sampler
    description: str  # as in "drawn from the prior"
    codes: Callable[[int, float], Iterator[torch.Tensor]]
    network: ConvVAE
    mixture: CodeMixture | None = None


def find_source(model: LoadedModel, sampler: Sampler | None) -> CodeSource:
    """What `sampler` draws from. By default the mixture, or else the prior.

    Raises `EarTeachError` if `sampler` is not available.
    """
    try:
        return SAMPLERS[sampler or "gmm"](model)
    except EarTeachError as error:
        if sampler is not None:
            raise EarTeachError(f"--sampler {sampler}: {error}; or use --sampler prior") from error
        _log.info("drawing from the prior: %s", error)
        return prior_source(model)


def prior_source(model: LoadedModel) -> CodeSource:
    """The standard normal distribution."""

    def codes(seed: int, temperature: float) -> Iterator[torch.Tensor]:
        generator, shape = torch.Generator().manual_seed(seed), model.network.latent_dim
        return (temperature * torch.randn(shape, generator=generator) for _ in count())

    return CodeSource("prior", "the prior", codes, model.network)


def mixture_source(model: LoadedModel) -> CodeSource:
    """A Gaussian mixture of the training images' codes; raises as `get_mixture`."""
    mixture = get_mixture(model)
    gaussians = "1 Gaussian" if mixture.components == 1 else f"{mixture.components} Gaussians"
    description = (
        f"a mixture of {gaussians}, fitted to the training codes, with details mixed from two "
        "training images similar to each ear"
    )
    if (second := load_second_decoder(model)) is None:
        codes = partial(mixture.codes, detail=_BLURRED_DETAIL)
        return CodeSource("gmm", description, codes, model.network, mixture)
    return CodeSource(
        "gmm",
        f"{description}; of every two ears, the one that looks more real",
        lambda seed, temperature: second.better_of_two(
            mixture.codes(seed, _WIDER * temperature), model
        ),
        second.network,
        mixture,
    )


def blend_source(model: LoadedModel) -> CodeSource:
    """Codes between those of two similar training images; raises as `get_mixture`."""
    mixture, second = get_mixture(model), load_second_decoder(model)
    network = model.network if second is None else second.network
    description = (
        "blends of two similar training images, much nearer to them than strangers' ears are"
    )
    return CodeSource("blend", description, mixture.blends, network)


SAMPLERS: dict[Sampler, Callable[[LoadedModel], CodeSource]] = {
    "gmm": mixture_source,
    "blend": blend_source,
    "prior": prior_source,
}


def get_mixture(model: LoadedModel) -> CodeMixture:
    """The mixture stored beside the checkpoint, if it was fitted to these weights.

    Else it is fitted to up to 4,096 evenly spread training images, and stored. Raises `EarTeachError`
    if the training array is missing too.
    """
    path = model.checkpoint.path.with_suffix(MIXTURE)
    key: dict[str, object] = {
        "weights": model.weights_digest(), "images": _MAX_IMAGES, "version": _CACHE_VERSION
    }  # fmt: skip
    if (arrays := load_npz(path, key)) is not None:
        return CodeMixture(**arrays)
    try:
        array = training_images(model)
    except EarTeachError as error:
        raise EarTeachError(
            f"no mixture of codes is stored beside {model.checkpoint.path}, and {error}"
        ) from error
    rows = sampled_rows(len(array), _MAX_IMAGES)
    _log.info("fitting a mixture to the codes of %d images from %s", len(rows), array.path)
    codes, thumbnails = _encode(model, array, rows)
    mixture = fit_mixture(codes, thumbnails, has_side=model.network.side_dimension is not None)
    store_npz(path, key, **vars(mixture))
    return mixture


def draw_codes(
    source: CodeSource, number: int, seed: int, batch_size: int, temperature: float = 1.0
) -> Iterator[torch.Tensor]:
    """Batches of `number` codes in all, float32 `(B, D)`."""
    remaining = islice(source.codes(seed, temperature), number)
    while batch := list(islice(remaining, batch_size)):
        yield torch.stack(batch)


def training_images(model: LoadedModel) -> EarArray:
    """The training array that the checkpoint names, with a note if it has changed since training.

    Raises `EarTeachError` if it is missing.
    """
    array = model.open_array("train")
    if model.is_as_in_training(array, "train") is False:
        _log.info("%s: has changed since this network was trained on it", array.path)
    return array


def _encode(model: LoadedModel, array: EarArray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes `(N, D)` and flat 16-pixel thumbnails, mirrored to the canonical side if there is one."""
    network = model.network
    codes, thumbnails = [], []
    for batch in model.batches(array, _BATCH_SIZE, rows):
        images = batch.images
        with torch.inference_mode():
            mu = network.encode(images.to(model.device))[0].cpu()
        if network.side_dimension is not None:
            images = mirrored(images, mu[:, network.side_dimension] < 0)
        small = functional.adaptive_avg_pool2d(images, _THUMBNAIL_SIZE)
        codes.append(mu.numpy())
        thumbnails.append(small.flatten(1).numpy())
    return np.concatenate(codes), np.concatenate(thumbnails)
