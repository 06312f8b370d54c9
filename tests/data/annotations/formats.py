"""The same ears in each format that `--boxes` reads, written by the format's own description."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

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
    categories = [
        {"id": 3, "name": "left_ear"},
        {"id": 5, "name": "right_ear"},
        {"id": 9, "name": "earring"},
    ]
    path = folder / "instances.json"
    everything = {"info": {}, "images": images, "annotations": [*annotations, other]}
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


def yolo_pose(folder: Path, photos: list[Photo]) -> Path:
    """https://docs.ultralytics.com/datasets/pose: three points of x, y and visibility after the box."""
    path = yolo(folder, photos)
    for photo in photos:
        labels = (path / photo.name).with_suffix(".txt")
        points = " 0.3 0.4 2 0 0 0 0.41 0.52 1"
        labels.write_text("".join(f"{line}{points}\n" for line in labels.read_text().splitlines()))
    (folder / "yolo" / "data.yaml").write_text(
        "kpt_shape: [3, 3]\nnames: {0: left ear, 1: right ear}\n"
    )
    return path


def labelme(folder: Path, photos: list[Photo]) -> Path:
    """https://github.com/wkentaro/labelme: a rectangle by two of its corners, here in any order."""
    for photo in photos:
        shapes = [
            {"label": f"{side}_ear", "points": [[x + w, y], [x, y + h]], "group_id": None,
             "shape_type": "rectangle"}
            for x, y, w, h, side in photo.ears
        ]  # fmt: skip
        path = (folder / "labelme" / photo.name).with_suffix(".JSON")
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {"imageWidth": photo.width, "imageHeight": photo.height, "imageData": None}
        name = "..\\photos\\" + photo.name.replace("/", "\\")
        path.write_text(
            json.dumps({"version": "5.4.1", "shapes": shapes, "imagePath": name, **about})
        )
    return folder / "labelme"


def cvat(folder: Path, photos: list[Photo]) -> Path:
    """https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat; every other ear is an outline."""
    images = []
    for number, photo in enumerate(photos):
        shapes = ['<tag label="seen"/>']
        for x, y, w, h, side in photo.ears:
            corners = f"{x},{y};{x + w},{y + h / 2};{x},{y + h}"
            shapes.append(
                f'<polygon label="{side}ear" points="{corners}"/>' if len(shapes) > 1 else
                f'<box label="{side}ear" xtl="{x}" ytl="{y}" xbr="{x + w}" ybr="{y + h}"/>'
            )  # fmt: skip
        images.append(
            f'<image id="{number}" name="{photo.name}" width="{photo.width}" '
            f'height="{photo.height}">{"".join(shapes)}</image>'
        )
    path = folder / "annotations.xml"
    path.write_text(f"<annotations><version>1.1</version>{''.join(images)}</annotations>")
    return path


def label_studio(folder: Path, photos: list[Photo]) -> Path:
    """https://labelstud.io/tags/rectanglelabels: percent of the photograph's width and height."""
    tasks = []
    for number, photo in enumerate(photos):
        results = [
            {"type": "rectanglelabels", "original_width": photo.width, "original_height": photo.height,
             "value": {"x": 100 * x / photo.width, "y": 100 * y / photo.height,
                       "width": 100 * w / photo.width, "height": 100 * h / photo.height,
                       "rotation": 0, "rectanglelabels": [f"{side} ear"]}}
            for x, y, w, h, side in photo.ears
        ]  # fmt: skip
        address = "/data/local-files/?d=sets/" + quote(photo.name)
        finished = [{"was_cancelled": True, "result": [7]}, {"result": results}]
        tasks.append({"id": number, "data": {"image": address}, "annotations": finished})
    path = folder / "project.json"
    path.write_text(json.dumps(tasks))
    return path


def via(folder: Path, photos: list[Photo]) -> Path:
    """https://www.robots.ox.ac.uk/~vgg/software/via, a project of version 2."""
    images = {
        f"{photo.name}123": {
            "filename": photo.name, "size": 123, "file_attributes": {},
            "regions": [
                {"shape_attributes": {"name": "rect", "x": x, "y": y, "width": w, "height": h},
                 "region_attributes": {"what": f"{side}-ear"}}
                for x, y, w, h, side in photo.ears
            ],
        }
        for photo in photos
    }  # fmt: skip
    path = folder / "via.json"
    path.write_text(json.dumps({"_via_settings": {}, "_via_img_metadata": images}))
    return path


def via_table(folder: Path, photos: list[Photo]) -> Path:
    path = folder / "via.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        names = "filename file_size file_attributes region_count region_id region_shape_attributes"
        writer.writerow([*names.split(), "region_attributes"])
        for photo in photos:
            for number, (x, y, w, h, side) in enumerate(photo.ears):
                shape = {"name": "rect", "x": x, "y": y, "width": w, "height": h}
                said = {"side": {side: True}}
                about = [photo.name, 9, "{}", len(photo.ears), number]
                writer.writerow([*about, json.dumps(shape), json.dumps(said)])
            if not photo.ears:
                writer.writerow([photo.name, 9, "{}", 0, 0, "{}", "{}"])
    return path


def semicolons(folder: Path, photos: list[Photo]) -> Path:
    """As a spreadsheet writes it where the comma is decimal."""
    rows = ["Image;side;x;y;w;h"]
    for photo in photos:
        for x, y, w, h, side in photo.ears:
            rows.append(f"{photo.name};{side};{x},0;{y},00;{w},0;{h}")
    path = folder / "boxes.CSV"
    path.write_text("\ufeff" + "\r\n".join(rows))
    return path


FORMATS: dict[str, Callable[[Path, list[Photo]], Path]] = {
    "COCO": coco,
    "CSV": table,
    "Pascal VOC": voc,
    "YOLO": yolo,
    "YOLO pose": yolo_pose,
    "LabelMe": labelme,
    "CVAT": cvat,
    "Label Studio": label_studio,
    "VIA": via,
    "VIA table": via_table,
    "semicolons": semicolons,
}
