"""Put a trained network into the package: `make drawn` calls this.

    python -m docs.weights build/drawn/export build/drawn/data/train_teacher.npy

The large tensors are halved to float16. The mixture that `sample` draws from and the second decoder are
fitted to the images and stored beside them, as no user has those. The hash and the figures in the README
beside them are written by hand.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file, save_file

import earteach
from earteach.cli.output import progress_bar
from earteach.config import SHARPEN_STEPS, InferenceConfig
from earteach.inference.loaded_model import load_model
from earteach.inference.sharpen import train_second_decoder
from earteach.model.pretrained import CONFIG, WEIGHTS

OUT = Path(earteach.__file__).parent / "weights" / "drawn"
# Smaller ones weigh nothing, and some, such as variances, are too small for float16.
LARGE = 1000


def main(exported: Path, images: Path) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    shutil.copy(exported / CONFIG, OUT)
    weights = load_file(exported / WEIGHTS)
    halved = {name: w.half() if w.numel() > LARGE else w for name, w in weights.items()}
    save_file(halved, OUT / WEIGHTS, metadata={"format": "pt", "part": "full"})
    config = InferenceConfig(accelerator="cpu", precision="bf16")
    model = load_model(OUT, config)
    trained_on = model.checkpoint.config.with_options({"train_data": images})
    model = replace(model, checkpoint=replace(model.checkpoint, config=trained_on))
    with progress_bar("sharpening") as progress:
        train_second_decoder(model, SHARPEN_STEPS, 42, config.batch_size, progress)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
