"""Train a network to find landmarks: a teacher, a heat map for each landmark, and some labelled ears.

>>> train_landmarks("checkpoints", Path("labelled"), Path("out")).error
0.031
"""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from math import cos, pi
from pathlib import Path
from typing import Any

import numpy as np
import torch

from earteach import checkpoint
from earteach.config import DRAWN_LANDMARKS, InferenceConfig, OptimConfig, TrainConfig
from earteach.data.arrays import EarArray, to_channels
from earteach.data.crops import Crop
from earteach.data.manifest import beside, read_points
from earteach.data.prepare import prepare
from earteach.data.split import Split
from earteach.data.strong_views import strong_views
from earteach.errors import EarTeachError
from earteach.files.folders import make_writable_folder
from earteach.files.overwrite_guard import refuse_foreign
from earteach.images import to_float
from earteach.inference.loaded_model import LoadedModel, load_model
from earteach.metrics.linear_probes import point_errors
from earteach.model.landmark_head import LabelledHeat, LandmarkHead, heat_map_loss, places_in
from earteach.model.network_parts import keep_part
from earteach.model.vae import ConvVAE
from earteach.randomness import Purpose, derive, seeded_weights
from earteach.synthetic.drawn_ear import draw_ear

STEPS, BATCH = 450, 16
RATE, WARMUP = 1e-3, 20
# In half sides: a second look centres the ear, so it is never far off.
_SHIFT = 0.1
# How often the held-out ears are looked at, in steps.
_EVERY = 50
_DRAWN = 2000
_log = logging.getLogger(__name__)

Find = Callable[[torch.Tensor], torch.Tensor]
Progress = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class LabelledEars:
    """Images `(N, C, S, S)`, uint8 or float32 in [0, 1], and landmarks `(N, K, 2)`.

    Landmarks are fractions of the sides; unknown ones are NaN.
    """

    images: torch.Tensor
    landmarks: torch.Tensor

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, rows: torch.Tensor) -> LabelledEars:
        return LabelledEars(self.images[rows], self.landmarks[rows])


@dataclass(frozen=True)
class TrainedLandmarks:
    """A network that finds `landmarks` points, in `checkpoint`.

    `error` is that on the held-out ears, a fraction of the diagonal of their landmarks' box, and
    `error_from_noise` that of the same training from random weights. `drawn` is the number of drawn
    ears that were mixed in.
    """

    checkpoint: Path
    teacher: Path
    landmarks: int
    ears: int
    held_out: int
    drawn: int
    steps: int
    error: float
    error_from_noise: float | None


def train_landmarks(
    teacher: str | Path,
    labelled: Path,
    out: Path,
    *,
    photographs: Path | None = None,
    drawn: bool | None = None,
    compare: bool = True,
    steps: int = STEPS,
    seed: int = 42,
    config: InferenceConfig = InferenceConfig(),
    progress: Progress | None = None,
) -> TrainedLandmarks:
    """Train on the arrays and landmarks that `earteach prepare --landmarks` wrote to `labelled`.

    Or `labelled` is what `read_landmarks` takes, and `photographs` the folder that it is about; then
    each photograph counts as a person of its own.

    The weights that do best on the validation array are kept, as a checkpoint in `out`. `drawn` mixes
    in drawn ears, whose 55 landmarks are those of the iBUG ear scheme; by default where the ears have
    as many. `compare` trains a network of the same shape from random weights, too.

    Raises `EarTeachError` for a teacher without a trained pyramid, or folders that do not fit.
    """
    model = load_model(teacher, config).for_training()
    with _prepared(labelled, photographs, model, seed) as folder:
        train = _read(folder / "train_teacher.npy", model)
        val = _read(folder / "val_teacher.npy", model, complete=True)
    count = train.landmarks.shape[1]
    if val.landmarks.shape[1] != count:
        raise EarTeachError(
            f"{labelled}: its arrays have {count} and {val.landmarks.shape[1]} landmarks; run `earteach "
            "prepare` again"
        )
    landmarker = with_landmark_head(model.network, count, seed)
    mixed = _drawn_ears(model, count, drawn, seed)
    path = out / "landmarks.ckpt"
    refuse_foreign(path, lambda path: checkpoint.read(path).task == "landmarks", "landmarks")
    make_writable_folder(out, f"--out {out}")

    def fitted(network: ConvVAE) -> float:
        return _fit(network, model, train, val, mixed, steps, seed, progress)

    error, error_from_noise = fitted(landmarker), None
    if compare:
        error_from_noise = fitted(with_landmark_head(model.untrained(seed), count, seed))
    _write(landmarker, model, path, error)
    return TrainedLandmarks(
        path, model.checkpoint.path, count, len(train), len(val),
        0 if mixed is None else len(mixed), steps, error, error_from_noise,
    )  # fmt: skip


def with_landmark_head(network: ConvVAE, count: int, seed: int) -> ConvVAE:
    """A copy of the network without its VAE; its head is a new one unless it finds `count` landmarks."""
    if network.pyramid is None:
        raise EarTeachError(
            "landmarks need a trained feature pyramid; train the teacher with a --teach-weight above 0"
        )
    landmarker = copy.deepcopy(network)
    if network.config.landmarks != count:
        landmarker.config = replace(network.config, landmarks=count)
        with seeded_weights(seed):
            head = LandmarkHead(network.pyramid.channels, count)
        landmarker.landmark_head = head.to(next(network.parameters()).device)
    return keep_part(landmarker, "landmarks", "a landmarker")


def learn(
    loss_of: Callable[[LabelledEars], torch.Tensor],
    groups: Iterable[dict[str, Any]],
    batches: Iterable[LabelledEars],
    steps: int,
) -> Iterator[float]:
    """Take the steps, with AdamW, a short warm-up and a cosine; gives the loss of each.

    `groups` are parameters with their learning rates; the images of `batches` are float32 in [0, 1].
    """
    optimizer = torch.optim.AdamW(list(groups), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(step, steps))
    for batch in islice(batches, steps):
        loss = loss_of(batch)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        yield float(loss.detach())


def _share(step: int, steps: int) -> float:
    """Of the highest learning rate."""
    return min(1.0, (step + 1) / WARMUP) * (0.02 + 0.98 * (1 + cos(pi * step / steps)) / 2)


def varied_batches(
    ears: LabelledEars, drawn: LabelledEars | None, seed: int
) -> Iterator[LabelledEars]:
    """Endless batches of the ears in strong views, float32; half of each is drawn ears if given."""
    generator = torch.Generator().manual_seed(derive(seed, Purpose.VIEWS))
    sources = [ears] if drawn is None else [ears, drawn]
    while True:
        chosen = [
            source.rows(torch.randint(len(source), (BATCH // len(sources),), generator=generator))
            for source in sources
        ]
        images = torch.cat([each.images for each in chosen])
        landmarks = torch.cat([each.landmarks for each in chosen])
        views = strong_views(to_float(images), generator, shift=_SHIFT)
        yield LabelledEars(views.images, (views.points(2 * landmarks - 1) + 1) / 2)


@torch.inference_mode()
def errors(find: Find, ears: LabelledEars) -> np.ndarray:
    """Each ear's mean distance from its landmarks over the diagonal of their box, `(N,)`."""
    heat = (find(to_float(images)) for images in torch.split(ears.images, 64))
    points = torch.cat([places_in(each).points for each in heat])
    return point_errors(points.numpy(), ears.landmarks.numpy())


def _fit(
    network: ConvVAE, model: LoadedModel, train: LabelledEars, val: LabelledEars,
    drawn: LabelledEars | None, steps: int, seed: int, progress: Progress | None,
) -> float:  # fmt: skip
    """Train the network in place, keep its best weights, and return their error on `val`."""
    trained = [each for each in network.parameters() if each.requires_grad]
    groups = [{"params": trained, "lr": RATE}]

    def find(images: torch.Tensor) -> torch.Tensor:
        with model.autocast():
            return network.landmark_heat(images.to(model.device)).cpu()

    def loss_of(batch: LabelledEars) -> torch.Tensor:
        return heat_map_loss(LabelledHeat(find(batch.images), batch.landmarks))

    best, weights = float("inf"), network.state_dict()
    batches = varied_batches(train, drawn, seed)
    for step, _ in enumerate(learn(loss_of, groups, batches, steps), start=1):
        if progress is not None:
            progress(step, steps)
        if (step % _EVERY == 0 or step == steps) and (error := errors(find, val).mean()) < best:
            best, weights = float(error), copy.deepcopy(network.state_dict())
    network.load_state_dict(weights)
    return best


@contextmanager
def _prepared(
    labelled: Path, photographs: Path | None, model: LoadedModel, seed: int
) -> Iterator[Path]:
    """A folder with the two arrays and their landmarks."""
    if (labelled / "train_teacher.npy").exists():
        yield labelled
        return
    if photographs is None:
        raise EarTeachError(
            f"--train {labelled}: is no folder that `earteach prepare --landmarks` wrote; write one, or "
            "name the photographs of these landmarks with --input"
        )
    network = model.network
    crop = Crop(network.image_size, gray=network.in_channels == 1)
    with tempfile.TemporaryDirectory(prefix="earteach-") as folder:
        prepare(
            photographs, Path(folder), crop=crop, landmarks=labelled, split=Split(0.2, seed=seed)
        )
        yield Path(folder)


def _read(path: Path, model: LoadedModel, *, complete: bool = False) -> LabelledEars:
    """The ears of an array that have landmarks, or all landmarks, in the file beside it."""
    array, stored = EarArray.open(path), beside(path, "landmarks.npy")
    landmarks = read_points(stored, len(array))
    known = np.isfinite(landmarks).all(axis=2)
    rows = np.flatnonzero(known.all(axis=1) if complete else known.any(axis=1))
    if not len(rows):
        raise EarTeachError(f"{stored}: holds no landmarks; run `earteach prepare --landmarks`")
    images = np.stack([model.image(array, row) for row in rows.tolist()])
    return LabelledEars(
        torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(landmarks[rows]).float()
    )


def _drawn_ears(
    model: LoadedModel, count: int, wanted: bool | None, seed: int
) -> LabelledEars | None:
    if wanted and count != DRAWN_LANDMARKS:
        raise EarTeachError(
            f"--drawn: drawn ears have {DRAWN_LANDMARKS} landmarks, yours {count}; leave it out"
        )
    if not (count == DRAWN_LANDMARKS if wanted is None else wanted):
        return None
    _log.info("mixing in %d drawn ears, which have the same landmarks", _DRAWN)
    size, channels = model.network.image_size, model.network.in_channels
    series = derive(seed, Purpose.DRAWN_EARS)
    ears = [draw_ear(series, index, size) for index in range(_DRAWN)]
    images = np.stack([to_channels(ear.image, channels) for ear in ears])
    return LabelledEars(
        torch.from_numpy(images).permute(0, 3, 1, 2),
        torch.from_numpy(np.stack([ear.landmarks for ear in ears])),
    )


def _write(network: ConvVAE, model: LoadedModel, path: Path, error: float) -> None:
    optim = OptimConfig(teach_weight=model.checkpoint.config.optim.teach_weight)
    config = TrainConfig(model=network.config, optim=optim)
    about = checkpoint.about(
        config, {}, task="landmarks", part="landmarks", metrics={"val/landmark_error": error}
    )
    checkpoint.write_network(network, about, path)
