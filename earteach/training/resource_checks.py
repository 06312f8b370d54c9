"""Whether the disks have space for a run's checkpoints and logs."""

from __future__ import annotations

import torch

from earteach.config import TrainConfig
from earteach.files.disk_space import check_space, readable
from earteach.model.build import build_model

# last.ckpt and the two best may come from three epochs while the next one is being written.
AT_ONCE = 4
# TensorBoard's images of an epoch: input, reconstruction and error of eight ears; eight samples.
PICTURES = 8 * 3 + 8
# The best PNG compression measured: 0.25 on photographs of 256 px (0.45 on smaller ones).
_PNG = 0.25


def check_space_for_run(config: TrainConfig, epochs_done: int = 0, *, fresh: bool = False) -> None:
    """Raise `EarTeachError` where the rest of the run cannot fit on its disks.

    The estimate of the logs is a lower bound. Existing checkpoints will be replaced, so their space
    counts as free, unless `fresh` keeps them.
    """
    each, run = checkpoint_bytes(config), config.run
    logs = log_bytes(config, config.optim.epochs - epochs_done)
    stats = [path.stat() for path in run.checkpoint_dir.glob("*.ckpt") if not fresh]
    existing = {stat.st_ino: stat.st_size for stat in stats}  # hard links count once
    checkpoints = AT_ONCE * each - sum(existing.values())
    what = f"a run that keeps {AT_ONCE} checkpoints of {readable(each)}"
    check_space(run.checkpoint_dir, checkpoints, what, "choose another --checkpoint-dir")
    check_space(run.log_dir, logs, "TensorBoard's log of the run", "choose another --log-dir")


def checkpoint_bytes(config: TrainConfig) -> int:
    """Approximate size of a checkpoint: weights, their average, the optimizer's two moments."""
    with torch.device("meta"):
        network = build_model(config.model)
    total = sum(tensor.nbytes for tensor in network.state_dict().values())
    trainable = sum(weight.nbytes for weight in network.parameters() if weight.requires_grad)
    return total + trainable * (3 if config.optim.ema_decay else 2)


def log_bytes(config: TrainConfig, epochs: int) -> int:
    """A lower bound for the images that TensorBoard logs in `epochs`."""
    pixels = config.model.in_channels * config.model.image_size**2
    return int(max(0, epochs) * PICTURES * pixels * _PNG)
