"""Whatever a file of boxes or landmarks holds, it is read or refused in one line."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as some

from earteach.data.annotations.annotation import Misfit
from earteach.data.annotations.boxes import read_boxes
from earteach.data.annotations.landmark_formats import read_landmarks
from earteach.errors import EarTeachError

NUMBERS = some.integers() | some.floats() | some.sampled_from([0, 1, -1, 2**70, 1e308])
JSON: Any = some.recursive(
    some.none() | some.booleans() | NUMBERS | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=3), inner),
    max_leaves=6,
)
IMAGE = some.fixed_dictionaries(
    {"id": JSON, "file_name": some.text(max_size=9) | JSON},
    optional={"width": JSON, "height": JSON},
)
EAR = some.fixed_dictionaries(
    {"image_id": JSON, "bbox": some.lists(NUMBERS, min_size=4, max_size=4) | JSON},
    optional={"category_id": JSON, "keypoints": JSON, "iscrowd": JSON},
)
COCO = some.fixed_dictionaries(
    {
        "images": some.lists(IMAGE, max_size=3) | JSON,
        "annotations": some.lists(EAR, max_size=3) | JSON,
    },
    optional={"categories": JSON},
)
SHAPE = some.fixed_dictionaries(
    {}, optional={
        "label": JSON, "shape_type": some.sampled_from(["point", "circle", "rectangle"]) | JSON,
        "points": some.lists(some.lists(NUMBERS, max_size=3), max_size=3) | JSON, "group_id": JSON,
        "shape_attributes": some.dictionaries(
            some.sampled_from(["name", "x", "y", "width", "height", "cx", "cy", "r"]),
            some.sampled_from(["rect", "point", "circle"]) | NUMBERS | JSON),
        "region_attributes": JSON, "id": JSON, "to_name": JSON, "parentID": JSON,
        "type": some.sampled_from(["rectanglelabels", "keypoint", "polygon"]) | JSON,
        "original_width": NUMBERS, "original_height": NUMBERS,
        "value": some.dictionaries(
            some.sampled_from(["x", "y", "width", "height", "rotation", "points", "rectanglelabels"]),
            NUMBERS | JSON) | JSON,
    },
)  # fmt: skip
SHAPES = some.lists(SHAPE | JSON, max_size=3) | JSON
OTHERS = (
    some.fixed_dictionaries({"imagePath": some.just("a.png") | JSON, "shapes": SHAPES})
    | some.lists(
        some.fixed_dictionaries(
            {},
            optional={
                "data": some.just({"image": "a.png"}) | JSON,
                "annotations": some.lists(some.fixed_dictionaries({"result": SHAPES}) | JSON)
                | JSON,
            },
        ),
        max_size=2,
    )
    | some.dictionaries(
        some.text(max_size=3),
        some.fixed_dictionaries({"filename": some.just("a.png"), "regions": SHAPES}),
    )
    | JSON
)
CELLS = some.sampled_from(
    ["image", "x", "y", "w", "h", "side", "width", "xmin", "1", "-2.5", "nan", "1e999", "", "a.png",
     '"', ",", "ear", "{", "}", "0.5"]
)  # fmt: skip
TABLES = some.lists(some.lists(CELLS, max_size=7).map(",".join), max_size=5).map("\n".join)
CVAT = ("xtl", "ytl", "xbr", "ybr")
LINES = some.lists(some.lists(CELLS, max_size=7).map(" ".join), max_size=5).map("\n".join)


def assert_read_or_refused(
    read: Callable[[Path], Any], name: str, content: bytes, as_folder: bool = False
) -> None:
    """Every ear that is read has a square in some photograph, or does not fit it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        refusal, by_photograph = "", []
        try:
            annotations = read(path.parent if as_folder else path)
            by_photograph = annotations.of([Path("a.png"), Path("b/1.png")])
        except EarTeachError as error:
            refusal = str(error)
    assert "\n" not in refusal
    for ear in (ear for ears in by_photograph for ear in ears or ()):
        with suppress(Misfit):
            left, top, side, _ = ear.in_pixels((640, 480)).square((640, 480), 0.15)
            assert side >= 1
            assert left < 640
            assert top < 480
            assert left + side > 0
            assert top + side > 0


@given(COCO)
@example(
    {
        "images": [{"id": 1, "file_name": "\n"}],
        "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}],
    }
)
def test_any_coco(data: Any) -> None:
    assert_read_or_refused(read_boxes, "b.json", json.dumps(data).encode())


@given(OTHERS)
def test_any_json_of_other_tools(data: Any) -> None:
    assert_read_or_refused(read_boxes, "b.json", json.dumps(data).encode())


@given(some.text(max_size=60) | TABLES)
def test_any_table(text: str) -> None:
    content = text.encode(errors="replace")
    assert_read_or_refused(read_boxes, "b.csv", b"image,x,y,w,h\n" + content)
    assert_read_or_refused(read_landmarks, "b.csv", b"image,x0,y0\n" + content)
    assert_read_or_refused(read_boxes, "b.csv", content)


@given(some.text(max_size=60) | LINES)
def test_any_text_among_labels(text: str) -> None:
    content = text.encode(errors="replace")
    assert_read_or_refused(read_boxes, "y/a.txt", content, as_folder=True)
    assert_read_or_refused(read_landmarks, "p/a.pts", b"{\n" + content + b"\n}", as_folder=True)


@given(some.text(max_size=40), some.lists(CELLS, min_size=4, max_size=4))
def test_any_xml(text: str, cells: list[str]) -> None:
    names = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(f"<{name}>{cell}</{name}>" for name, cell in zip(names, cells, strict=True))
    content = f"<annotation><object><name>{text}</name><bndbox>{box}</bndbox></object></annotation>"
    assert_read_or_refused(read_boxes, "v/a.xml", content.encode(errors="replace"), as_folder=True)
    shape = " ".join(
        f'{edge}="{cell}"' for edge, cell in zip(CVAT, cells, strict=True) if '"' not in cell
    )
    content = f'<annotations><image name="a.png"><box {shape}/>{text}</image></annotations>'
    assert_read_or_refused(read_boxes, "c.xml", content.encode(errors="replace"))
