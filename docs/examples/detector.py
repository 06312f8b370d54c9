"""Train an ear detector on photographs with boxes: from a trained encoder, and from noise.

    pip install pycocotools
    python docs/examples/detector.py checkpoints --photographs photographs --boxes boxes.csv \\
        --out detector

Boxes may be in any format that `earteach prepare --boxes` reads. Every fifth photograph is kept for
testing. For each start, the folder gets the detector's weights and a picture of the boxes that it finds
in test photographs, and the average precision is printed during training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from torch import nn
from torchmetrics.detection import MeanAveragePrecision
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.utils import draw_bounding_boxes, make_grid, save_image

import earteach
from earteach.data import photographs
from earteach.data.annotations.boxes import read_boxes

STRIDES = (4, 8, 16)
WIDTH, HEIGHT = 320, 240
STARTS: dict[str, dict[str, bool]] = {
    "teacher": {"frozen": False},
    "teacher-frozen": {"frozen": True},
    "noise": {"frozen": False, "weights": False},
}


@dataclass(frozen=True)
class Scene:
    """A photograph `(3, H, W)`, uint8, and the boxes in it `(N, 4)`: left, top, right, bottom."""

    image: torch.Tensor
    boxes: torch.Tensor

    def target(self) -> dict[str, torch.Tensor]:
        return {"boxes": self.boxes, "labels": torch.ones(len(self.boxes), dtype=torch.int64)}


def read_scenes(folder: Path, boxes: Path) -> list[Scene]:
    """The photographs that the box file names, at no more than 320 × 240 pixels."""
    paths = photographs.find(folder).files
    annotated = read_boxes(boxes).of([path.relative_to(folder) for path in paths])
    scenes = []
    for path, ears in zip(paths, annotated, strict=True):
        if ears is None:
            continue
        image = photographs.read(path)
        height, width = image.shape[:2]
        scale = min(1.0, WIDTH / width, HEIGHT / height)
        size = round(scale * width), round(scale * height)
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        corners = [ear.in_pixels((width, height)).box for ear in ears]
        found = torch.tensor([box for box in corners if box], dtype=torch.float32).reshape(-1, 4)
        found[:, 2:] += found[:, :2]
        scenes.append(Scene(torch.from_numpy(small).permute(2, 0, 1), scale * found))
    return scenes


def divided(scenes: Sequence[Scene]) -> tuple[list[Scene], list[Scene]]:
    """Those to train on, and every fifth to test."""
    return [scene for number, scene in enumerate(scenes) if number % 5], list(scenes[::5])


def ear_detector(backbone: nn.Module) -> FCOS:
    """A single-stage detector (Tian et al. 2019, https://arxiv.org/abs/1904.01355)."""
    return FCOS(
        backbone,
        num_classes=2,
        anchor_generator=AnchorGenerator([(stride,) for stride in STRIDES], [(1.0,)] * 3),
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        min_size=HEIGHT,
        max_size=WIDTH,
        score_thresh=0.02,
    )


def varied(scene: Scene, generator: torch.Generator) -> Scene:
    """In other light, and one time in two mirrored."""
    gain, shift, turn = torch.rand(3, generator=generator).tolist()
    pixels = (0.7 + 0.6 * gain) * scene.image.float() + 80 * (shift - 0.5)
    image, boxes = pixels.clamp(0, 255).to(torch.uint8), scene.boxes
    if turn < 0.5:
        image, boxes = image.flip(2), boxes.clone()
        boxes[:, [0, 2]] = image.shape[2] - boxes[:, [2, 0]]
    return Scene(image, boxes)


def learn(
    detector: nn.Module, scenes: Sequence[Scene], *, steps: int, rate: float, seed: int, batch: int = 4
) -> Iterator[float]:  # fmt: skip
    """The loss of each step. The backbone learns at `rate`, the rest at 1e-3, after a warm-up."""
    generator = torch.Generator().manual_seed(seed)
    trained = {name: p for name, p in detector.named_parameters() if p.requires_grad}
    groups = [
        {"params": [p for n, p in trained.items() if n.startswith("backbone") is body], "lr": lr}
        for body, lr in ((True, rate), (False, 1e-3))
    ]
    rates = [group["lr"] for group in groups]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=steps, pct_start=0.1
    )
    for _ in range(steps):
        detector.train()
        rows = torch.randint(len(scenes), (batch,), generator=generator).tolist()
        chosen = [varied(scenes[row], generator) for row in rows]
        losses = detector([each.image / 255 for each in chosen], [each.target() for each in chosen])
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained.values(), 10.0)
        optimizer.step()
        schedule.step()
        yield float(loss.detach())


@torch.inference_mode()
def average_precision(detector: nn.Module, scenes: Sequence[Scene]) -> tuple[float, float]:
    """AP at an overlap of 0.5, and its mean over overlaps from 0.5 to 0.95, as COCO defines them."""
    detector.eval()
    metric = MeanAveragePrecision()
    for scene in scenes:
        metric.update(detector([scene.image / 255]), [scene.target()])
    values = metric.compute()
    return float(values["map_50"]), float(values["map"])


def tested(
    detector: nn.Module, train: Sequence[Scene], test: Sequence[Scene], *,
    steps: int, every: int, rate: float, seed: int,
) -> Iterator[tuple[int, float, float]]:  # fmt: skip
    """Train, and give the step, AP50 and AP in % on the test photographs every so many steps."""
    for step, _ in enumerate(learn(detector, train, steps=steps, rate=rate, seed=seed), start=1):
        if step % every == 0 or step == steps:
            ap50, ap = average_precision(detector, test)
            yield step, 100 * ap50, 100 * ap


@torch.inference_mode()
def picture(detector: nn.Module, scenes: Sequence[Scene], least: float = 0.3) -> torch.Tensor:
    """The photographs with their true boxes in white and those found in orange, `(3, H, W)`."""
    detector.eval()
    drawn = []
    for scene in scenes:
        (found,) = detector([scene.image / 255])
        likely = found["boxes"][found["scores"] >= least]
        image = scene.image
        for boxes, colour in ((scene.boxes, "white"), (likely, "orange")):
            if len(boxes):
                image = draw_bounding_boxes(image, boxes, colors=colour, width=2)
        canvas = torch.zeros(3, HEIGHT, WIDTH)
        canvas[:, : image.shape[1], : image.shape[2]] = image / 255
        drawn.append(canvas)
    return make_grid(drawn, nrow=3, padding=4)


def main(options: argparse.Namespace) -> None:
    scenes = read_scenes(options.photographs, options.boxes)
    train, test = divided(scenes)
    train = train[: options.number]
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"{len(train)} photographs to train on, {len(test)} to test; AP50 and AP in %")
    for name in options.starts:
        torch.manual_seed(options.seed)
        backbone = earteach.EarBackbone.from_checkpoint(
            options.checkpoint, strides=STRIDES, fpn="trained", **STARTS[name]
        )
        detector = ear_detector(backbone)
        for step, ap50, ap in tested(
            detector, train, test,
            steps=options.steps, every=options.every, rate=options.rate, seed=options.seed,
        ):  # fmt: skip
            print(f"{name:16}step {step:<6}{ap50:5.1f}{ap:7.1f}", flush=True)
        torch.save(detector.state_dict(), options.out / f"{name}.pt")
        save_image(picture(detector, test[:9]), options.out / f"{name}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Ear detectors from a trained encoder and from noise."
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--boxes", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("detector"))
    parser.add_argument("--number", type=int, help="train on only this many photographs")
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=["teacher", "noise"])
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument("--every", type=int, default=150, help="steps between tests")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of the backbone")
    parser.add_argument("--seed", type=int, default=0)
    try:
        main(parser.parse_args())
    except earteach.EarTeachError as error:
        sys.exit(f"error: {error}")
