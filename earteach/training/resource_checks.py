"""What a run takes: on its disks checkpoints, several of them at once, and logs; and memory."""

from __future__ import annotations

from pathlib import Path

import torch

from earteach.config import TrainConfig
from earteach.errors import EarTeachError
from earteach.files.disk_space import check_space, readable
from earteach.hardware import memory_of_machine, on_cpu
from earteach.model.build import build_model

# last.ckpt and the two best ones may be of three epochs, while the next one is being written.
AT_ONCE = 4
# An epoch's pictures in TensorBoard: input, reconstruction and error of eight ears, and eight samples.
PICTURES = 8 * 3 + 8
# The smallest share that PNG made of an ear's bytes: photographs of 256 px; smaller ones take 0.45.
_PNG = 0.25


def check_space_for_run(config: TrainConfig, epochs_done: int = 0, *, fresh: bool = False) -> None:
    """Raise `EarTeachError` where the rest of the run cannot fit on its disks.

    The logs are counted at the least that they take; checkpoints that are there already are not
    counted once more, unless they stay beside the new ones (`fresh`).
    """
    each, run = checkpoint_bytes(config), config.run
    logs = log_bytes(config, config.optim.epochs - epochs_done)
    checkpoints = AT_ONCE * each - (0 if fresh else _kept(run.checkpoint_dir))
    what = f"a run of {AT_ONCE} checkpoints at once, {readable(each)} each,"
    check_space(run.checkpoint_dir, checkpoints, what, "choose another --checkpoint-dir")
    check_space(run.log_dir, logs, "TensorBoard's log of the run", "choose another --log-dir")


def check_memory_for_run(config: TrainConfig, images: int) -> None:
    """Raise `EarTeachError` where a step of training cannot fit in the memory of this machine.

    It is counted low: what a checkpoint holds, gradients, and of each image what the first convolution
    gives; on a GPU, whose memory is another, only what a checkpoint holds.
    """
    model = config.model
    needed = checkpoint_bytes(config)
    if on_cpu(config.hardware.accelerator):
        batch = min(config.optim.batch_size, images)
        first = model.base_channels * (model.image_size // 2) ** 2 * 4
        needed += _network_bytes(config)[1] + batch * first
    there = memory_of_machine()
    if needed > there:
        raise EarTeachError(
            f"--base-channels {model.base_channels} --image-size {model.image_size} --batch-size "
            f"{config.optim.batch_size}: a step needs at least {readable(needed)} of memory, and this "
            f"machine has {readable(there)}; lower one of them"
        )


def checkpoint_bytes(config: TrainConfig) -> int:
    """About what one checkpoint takes: weights, their average, and the optimizer's two moments."""
    whole, trained = _network_bytes(config)
    return whole + trained * (3 if config.optim.ema_decay else 2)


def _network_bytes(config: TrainConfig) -> tuple[int, int]:
    """All of the network's numbers, and those that are trained."""
    with torch.device("meta"):
        network = build_model(config.model)
    whole = sum(tensor.nbytes for tensor in network.state_dict().values())
    return whole, sum(weight.nbytes for weight in network.parameters() if weight.requires_grad)


def log_bytes(config: TrainConfig, epochs: int) -> int:
    """The least that the pictures of so many epochs take."""
    pixels = config.model.in_channels * config.model.image_size**2
    return int(max(0, epochs) * PICTURES * pixels * _PNG)


def _kept(folder: Path) -> int:
    """Bytes of the checkpoints in the folder, each file once whatever its names."""
    stats = {stat.st_ino: stat.st_size for stat in (p.stat() for p in folder.glob("*.ckpt"))}
    return sum(stats.values())
