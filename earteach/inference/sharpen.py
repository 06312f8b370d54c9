"""Train a second decoder, which draws sharper new ears.

>>> sharpen("checkpoints").path
PosixPath('checkpoints/best-epoch=011-loss=0.001980.sharp.npz')

A decoder that lowers the squared error decodes a code to the mean of all the detail that it could stand
for: a blur. Its copy learns, against a discriminator, to be mistaken for photographs: a VAE-GAN (Larsen
et al. 2016, https://arxiv.org/abs/1512.09300) with the encoder fixed, and the error measured on pixels.
It decodes codes of training images and new codes. The encoder and the first decoder stay as they are.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from earteach.checkpoint import save_state
from earteach.config import SHARPEN_STEPS, InferenceConfig
from earteach.data.arrays import EarArray
from earteach.errors import EarTeachError
from earteach.files.atomic_write import write_atomically
from earteach.files.folders import make_writable_folder
from earteach.hardware import is_out_of_memory
from earteach.inference.loaded_model import LoadedModel, load_model
from earteach.inference.samplers import get_mixture, training_images
from earteach.inference.second_decoder import store_second_decoder
from earteach.model.discriminator import Discriminator
from earteach.model.loss import dissimilarity, squared_error
from earteach.randomness import Purpose, derive, permutation, seeded_weights
from earteach.run_files import SHARPENING

_DECODER_RATE, _DISCRIMINATOR_RATE = 3e-4, 1e-3
# The discriminator learns alone in the first steps, as it would mislead the decoder, and in the last, to
# know the ears of the finished decoder; fractions of the steps.
_DECODER_START, _DECODER_STOP = 0.05, 0.85
# Detail may be new, so reconstructions are compared at half their size; in their structure, a little, at
# full size.
_MSE_WEIGHT, _SSIM_WEIGHT = 300.0, 1.0
# The R1 gradient penalty (Mescheder et al. 2018, https://arxiv.org/abs/1801.04406), every so many steps
# (Karras et al. 2020, https://arxiv.org/abs/1912.04958).
_R1_WEIGHT, _R1_INTERVAL = 0.05, 16
_EMA_DECAY = 0.998
_SAVE_INTERVAL = 100  # steps
_VERSION = 1  # of the saved state

_log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]  # (done, total), before each step and after the last


@dataclass(frozen=True)
class Sharpened:
    """A second decoder of `checkpoint`, trained on `images` images; `sample` finds it in `path`."""

    checkpoint: Path
    path: Path
    steps: int
    images: int


def sharpen(
    path: str | Path,
    *,
    steps: int = SHARPEN_STEPS,
    seed: int = 42,
    config: InferenceConfig = InferenceConfig(),
    progress: Progress | None = None,
) -> Sharpened:
    """Train a second decoder and store it beside the checkpoint, in place of an earlier one.

    Interrupted and repeated, it goes on from where it was saved last, and ends with the same weights.
    Raises `EarTeachError` if the training array is missing, the checkpoint has no decoder, its folder
    cannot be written, or training fails.
    """
    if steps < 1:
        raise EarTeachError(f"--steps {steps}: must be at least 1")
    model = load_model(path, config)
    source = model.checkpoint.path
    if model.checkpoint.part != "full":
        raise EarTeachError(
            f"{source}: holds only the {model.checkpoint.part} of a network; sharpen the checkpoint "
            "that it came from"
        )
    make_writable_folder(
        source.parent, str(source.parent), "copy the checkpoint to a folder of your own"
    )
    try:
        images, stored = train_second_decoder(model, steps, seed, config.batch_size, progress)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise EarTeachError(
            f"--batch-size {config.batch_size}: out of memory; try --batch-size "
            f"{max(1, config.batch_size // 2)}"
        ) from error
    return Sharpened(source, stored, steps, images)


def train_second_decoder(
    model: LoadedModel, steps: int, seed: int, batch_size: int, progress: Progress | None = None
) -> tuple[int, Path]:
    """The number of images that it learned from, and where it is stored."""
    model = model.for_training()
    try:
        array = training_images(model)
    except EarTeachError as error:
        raise EarTeachError(f"`sharpen` needs the training images, and {error}") from error
    training = _AdversarialTraining(model, steps, seed)
    state = _SavedState(model, array, steps=steps, seed=seed, batch_size=batch_size)
    first = state.load(training)
    photographs = _photographs(model, array, batch_size, seed, first)
    new_codes = islice(_new_codes(model, max(1, batch_size // 2), seed), first, None)
    for step in range(first, steps + 1):
        if step % _SAVE_INTERVAL == 0:
            state.save(training, step)
        try:
            if progress is not None:
                progress(step, steps)
        except BaseException:  # an interruption
            state.save(training, step)
            raise
        if step < steps:
            training.step(step, next(photographs), next(new_codes))
    weights = torch.cat([each.flatten() for each in training.ema_decoder.parameters()])
    if not weights.isfinite().all():
        state.remove()
        raise EarTeachError(
            f"{model.checkpoint.path}: the second decoder diverged; try another --seed, or "
            "--precision 32"
        )
    path = store_second_decoder(model, training.ema_decoder, training.discriminator)
    state.remove()
    return len(array), path


class _SavedState:
    """The state of an unfinished training, in a file beside the checkpoint."""

    def __init__(self, model: LoadedModel, array: EarArray, **options: int) -> None:
        self._path = model.checkpoint.path.with_suffix(SHARPENING)
        self._device = model.device
        self._key = {
            "version": _VERSION, "weights": model.weights_digest(), "images": array.fingerprint(),
            "precision": model.precision, **options,
        }  # fmt: skip

    def load(self, training: _AdversarialTraining) -> int:
        """The steps that are done: 0 without a file of this training."""
        try:
            stored = torch.load(self._path, map_location=self._device, weights_only=True)
            if stored["key"] != self._key:
                _log.info("%s: is of other options or images; starting over", self._path)
                return 0
            step, state = int(stored["step"]), stored["state"]
        except Exception:  # missing, or whatever a damaged file makes torch's unpickler raise
            return 0
        try:
            training.load_state_dict(state)
        except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise EarTeachError(f"{self._path}: was altered; delete it, and start again") from error
        _log.info("continuing after %d of %d steps", step, training.steps)
        return step

    def save(self, training: _AdversarialTraining, step: int) -> None:
        state = {"key": self._key, "step": step, "state": training.state_dict()}
        write_atomically(self._path, partial(save_state, state), again="`earteach sharpen`")

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


class _AdversarialTraining:
    """A decoder and a discriminator, each trained against the other."""

    def __init__(self, model: LoadedModel, steps: int, seed: int) -> None:
        self.model, self.steps = model, steps
        stop = max(1, int(_DECODER_STOP * steps))
        self.decoder_steps = range(int(_DECODER_START * steps), stop)
        self.network = copy.deepcopy(model.network).requires_grad_(False)
        self.network.decoder.requires_grad_(True)
        self.ema_decoder = copy.deepcopy(self.network.decoder).requires_grad_(False)
        with seeded_weights(seed):
            discriminator = Discriminator(self.network.in_channels, self.network.image_size)
        self.discriminator = discriminator.to(model.device)
        self.decoder_optimizer, self.discriminator_optimizer = (
            torch.optim.Adam(part.parameters(), betas=(0.0, 0.99))
            for part in (self.network.decoder, self.discriminator)
        )

    def _parts(self) -> dict[str, Any]:
        return {
            "decoder": self.network.decoder, "ema_decoder": self.ema_decoder,
            "discriminator": self.discriminator, "decoder_optimizer": self.decoder_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def step(self, step: int, photographs: torch.Tensor, new_codes: torch.Tensor) -> None:
        """Photographs `(B, C, S, S)` and new codes `(B / 2, D)`.

        The decoder decodes these codes, and those of the first half of the photographs.
        """
        if step >= self.decoder_steps.stop:
            self.network.decoder = self.ema_decoder
        _set_rate(self.decoder_optimizer, _DECODER_RATE, step / self.decoder_steps.stop)
        _set_rate(self.discriminator_optimizer, _DISCRIMINATOR_RATE, step / self.steps)
        originals = photographs[: -(-len(photographs) // 2)]
        with self.model.autocast():
            with torch.no_grad():
                codes = self.network.encode(originals)[0]
            with torch.set_grad_enabled(step in self.decoder_steps):
                decoded = self.network.decode(torch.cat([codes, new_codes])).float()
        self._discriminator_step(photographs, decoded.detach(), step)
        if step in self.decoder_steps:
            self._decoder_step(originals, decoded, step - self.decoder_steps.start)

    def _discriminator_step(
        self, photographs: torch.Tensor, decoded: torch.Tensor, step: int
    ) -> None:
        with self.model.autocast():
            real, fake = self.discriminator(photographs), self.discriminator(decoded)
        losses = [_loss(-r) + _loss(f) for r, f in zip(real, fake, strict=True)]
        if step % _R1_INTERVAL == 0:
            losses.append(_R1_INTERVAL * self._r1_penalty(photographs))
        _descend(self.discriminator_optimizer, torch.stack(losses).sum())

    def _r1_penalty(self, photographs: torch.Tensor) -> torch.Tensor:
        """Half the weighted mean squared gradient of the logits in the pixels of photographs."""
        photographs = photographs.detach().clone().requires_grad_()
        image_logit, patch_logits = self.discriminator(photographs)
        (gradient,) = torch.autograd.grad(
            image_logit.sum() + patch_logits.mean(dim=1).sum(), photographs, create_graph=True
        )
        return _R1_WEIGHT / 2 * gradient.square().sum(dim=(1, 2, 3)).mean()

    def _decoder_step(self, originals: torch.Tensor, decoded: torch.Tensor, step: int) -> None:
        self.discriminator.requires_grad_(False)
        with self.model.autocast():
            fake = self.discriminator(decoded)
        self.discriminator.requires_grad_(True)
        reconstructions = decoded[: len(originals)]
        small, target = (functional.avg_pool2d(x, 2) for x in (reconstructions, originals))
        faithful = _MSE_WEIGHT * squared_error(small, target).mean()
        similar = _SSIM_WEIGHT * dissimilarity(reconstructions, originals).mean()
        losses = [*(_loss(-logits) for logits in fake), faithful, similar]
        _descend(self.decoder_optimizer, torch.stack(losses).sum())
        weight = max(1 - _EMA_DECAY, 9 / (10 + step))
        for average, latest in zip(
            self.ema_decoder.parameters(), self.network.decoder.parameters(), strict=True
        ):
            average.lerp_(latest.detach(), weight)


def _loss(logits: torch.Tensor) -> torch.Tensor:
    """The non-saturating loss of logits that should be low (Goodfellow et al. 2014)."""
    return functional.softplus(logits.float()).mean()


def _set_rate(optimizer: torch.optim.Optimizer, highest: float, done: float) -> None:
    """The learning rate is constant, and in the second half falls to zero."""
    for group in optimizer.param_groups:
        group["lr"] = highest * min(1.0, 2 * max(0.0, 1 - done))


def _descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    optimizer.step()


def _photographs(
    model: LoadedModel, array: EarArray, batch_size: int, seed: int, first: int
) -> Iterator[torch.Tensor]:
    """Endless batches `(B, C, S, S)` in random order, from the one numbered `first`.

    A last, smaller one of an epoch is left out.
    """
    batches = max(1, len(array) // batch_size)
    first_epoch, begin = divmod(first, batches)
    for epoch in count(first_epoch):
        rows = permutation(seed, epoch, len(array))[begin * batch_size : batches * batch_size]
        for batch in model.batches(array, batch_size, rows):
            yield batch.images.to(model.device)
        begin = 0


def _new_codes(model: LoadedModel, number: int, seed: int) -> Iterator[torch.Tensor]:
    """Endless batches of new codes `(number, D)`, others than `sample` draws with this seed."""
    codes = get_mixture(model).codes(derive(seed, Purpose.NEW_CODES))
    while True:
        yield torch.stack(list(islice(codes, number))).to(model.device)
