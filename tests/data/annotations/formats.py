"""The same ears in each format that `--boxes` reads, written by the format's own description."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Width and height of a photograph, and of each ear left, top, width, height and side.
Ears = list[tuple[int, int, int, int, str]]


@dataclass(frozen=True)
class Photo:
    name: str
    width: int
    height: int
    ears: Ears


def coco(folder: Path, photos: list[Photo]) -> Path:
    """https://cocodataset.org/#format-data"""
    images = [
        {"id": 7 + n, "file_name": p.name, "width": p.width, "height": p.height}
        for n, p in enumerate(photos)
    ]
    annotations = [
        {"id": 0, "image_id": 7 + n, "category_id": 3 if side == "left" else 5,
         "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
        for n, p in enumerate(photos) for x, y, w, h, side in p.ears
    ]  # fmt: skip
    other = {"id": 1, "image_id": 7, "category_id": 9, "bbox": [0, 0, 9, 9], "iscrowd": 0}
    crowd = {"id": 2, "image_id": 7, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1}
    categories = [
        {"id": 3, "name": "left_ear"},
        {"id": 5, "name": "right_ear"},
        {"id": 9, "name": "earring"},
    ]
    path = folder / "instances.json"
    everything = {"info": {}, "images": images, "annotations": [*annotations, other, crowd]}
    path.write_text(json.dumps({**everything, "categories": categories}))
    return path


def table(folder: Path, photos: list[Photo]) -> Path:
    path = folder / "boxes.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["side", "Image", " x", "y", "w", "h"])
        for photo in photos:
            for x, y, w, h, side in photo.ears:
                writer.writerow([side, photo.name, x, y, w, h])
    return path


def voc(folder: Path, photos: list[Photo]) -> Path:
    """The development kit: the first pixel is 1, and xmax and ymax are the last ones inside."""
    for photo in photos:
        objects = "".join(
            f"<object><name>ear-{side}</name><pose>Left</pose><bndbox><xmin>{x + 1}</xmin>"
            f"<ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
            for x, y, w, h, side in photo.ears
        )
        size = f"<width>{photo.width}</width><height>{photo.height}</height><depth>3</depth>"
        path = (folder / "dataset" / "Annotations" / photo.name).with_suffix(".xml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"<annotation><!-- by hand --><filename>renamed.jpg</filename><size>{size}</size>"
            f"{objects}</annotation>"
        )
    return folder / "dataset"


def yolo(folder: Path, photos: list[Photo]) -> Path:
    for photo in photos:
        lines = [
            f"{int(side == 'right')} {(x + w / 2) / photo.width:.9f} {(y + h / 2) / photo.height:.9f} "
            f"{w / photo.width:.9f} {h / photo.height:.9f}"
            for x, y, w, h, side in photo.ears
        ]
        path = (folder / "yolo" / "labels" / photo.name).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines))
    (folder / "yolo" / "data.yaml").write_text("nc: 2\nnames: [left ear, right ear]\n")
    return folder / "yolo" / "labels"


FORMATS: dict[str, Callable[[Path, list[Photo]], Path]] = {
    "COCO": coco,
    "CSV": table,
    "Pascal VOC": voc,
    "YOLO": yolo,
}
