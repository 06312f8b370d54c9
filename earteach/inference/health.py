"""How a trained network uses its code, what its loss is made of, and what the doctor says to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from earteach import checkpoint
from earteach.data.arrays import EarArray
from earteach.errors import EarTeachError
from earteach.inference.loaded_model import LoadedModel
from earteach.metrics.clean_images import CleanImages
from earteach.metrics.doctor import Advice, diagnose
from earteach.metrics.latent import LatentStatistics
from earteach.metrics.signs import Epoch, Signs
from earteach.run_files import RECORDER_STATE


@dataclass(frozen=True)
class Health:
    """What stands behind the means.

    `kld_per_dimension` is in nats, `share_recon` and `share_kld` are of the loss. `train_recon_loss` is
    that of up to 64 training images without augmentation, and `gap` how much the evaluated images
    exceed it; None where the training array is gone or another.
    """

    kld_per_dimension: tuple[float, ...]
    share_recon: float
    share_kld: float
    train_recon_loss: float | None
    gap: float | None


def examine(
    model: LoadedModel, codes: LatentStatistics, *, images: int, loss: float, recon_loss: float
) -> tuple[Health, tuple[Advice, ...]]:
    """From the codes and the mean losses of evaluated images, beside what training has kept."""
    klds = tuple(codes.kld_per_dimension().tolist())
    clean = _clean_images(model)
    train_recon_loss = None if clean is None else _reconstruction_loss(model, clean)
    health = Health(
        kld_per_dimension=klds,
        share_recon=recon_loss / loss if loss else 0.0,
        share_kld=(loss - recon_loss) / loss if loss else 0.0,
        train_recon_loss=train_recon_loss,
        gap=None if train_recon_loss is None else recon_loss - train_recon_loss,
    )
    found = model.checkpoint
    signs = Signs(
        config=found.config,
        epochs=found.epochs_completed,
        steps=found.global_step,
        history=history(found.state),
        images=images,
        kld_per_dimension=klds,
        variance=tuple(codes.variance().tolist()),
        recon_loss=recon_loss,
        mean_image_error=None if clean is None else clean.mean_image_error,
        eigenvalues=() if clean is None else clean.eigenvalues,
        side_dimension=model.network.side_dimension,
    )
    # Of students the doctor knows nothing: all that it would change is the teacher's.
    return health, () if checkpoint.TEACHER in found.about else diagnose(signs)


def history(state: dict[str, Any]) -> tuple[Epoch, ...]:
    """The epochs that training has kept in a checkpoint's state."""
    kept = state.get("callbacks", {}).get(RECORDER_STATE, {})
    return tuple(Epoch(**epoch) for epoch in kept.get("history", ()))


def _clean_images(model: LoadedModel) -> CleanImages | None:
    named, network = model.checkpoint.config.data, model.network
    try:
        train = EarArray.open(named.train_data, named.layout)
    except EarTeachError:
        return None
    if model.checkpoint.about["data"].get("train") != train.fingerprint():
        return None
    return CleanImages(train, size=network.image_size, channels=network.in_channels)


def _reconstruction_loss(model: LoadedModel, clean: CleanImages) -> float:
    config = model.checkpoint.config
    with model.running() as network:
        return clean.reconstruction_loss(
            network, seed=config.run.seed, batch_size=config.optim.batch_size
        )
