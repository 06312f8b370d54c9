"""Files as other tools write them: what they hold is read, or refused in words that help."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earteach.data.annotations.annotation import Annotation, Misfit
from earteach.data.annotations.boxes import read_boxes
from earteach.errors import EarTeachError

SIZE = (100, 200)


def ears_of(path: Path, name: str = "a.png", category: str | None = None) -> list[Annotation]:
    (ears,) = read_boxes(path, category).of([Path(name)])
    return [ear.in_pixels(SIZE) for ear in ears or ()]


def boxes_of(path: Path) -> list[list[float]]:
    return [list(ear._bounds() or ()) for ear in ears_of(path)]


def written(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def coco(*annotations: dict[str, Any], **image: Any) -> dict[str, Any]:
    images = [{"id": "one", "file_name": "a.png", "width": 100, "height": 200, **image}]
    return {"images": images, "annotations": [{"image_id": "one", **each} for each in annotations]}


SQUARE = [20, 30, 60, 30, 60, 80, 20, 80]  # corners of a box at 20, 30 of 40 × 50


@pytest.mark.parametrize(
    "ear",
    [
        {"bbox": [20, 30, 40, 50]},
        {"bbox": ["20", "30", "40", "50"]},
        {"bbox": [20, 30, 40, 50], "iscrowd": 1, "segmentation": {"size": [2, 1], "counts": [0, 2]}},
        {"segmentation": [SQUARE[:4], SQUARE[4:]]},
        {"bbox": [], "segmentation": [SQUARE]},
        {"bbox": None, "segmentation": [SQUARE]},
        {"bbox": [0, 0, 0, 0], "segmentation": [SQUARE]},
        {"keypoints": [19.5, 29.5, 2, 0, 0, 0, 59.5, 79.5, 1], "bbox": [0, 0, 0, 0]},
    ],
)  # fmt: skip
def test_coco_boxes_may_be_told_in_other_ways(tmp_path: Path, ear: dict[str, Any]) -> None:
    path = written(tmp_path, "b.json", coco(ear))
    assert boxes_of(path) == [[20, 30, 40, 50]]


@pytest.mark.parametrize(
    "names",
    [
        {"file_name": "https://host/x/a.png?sig=1"},
        {"file_name": None, "path": "/data/a.png"},
        {"file_name": "", "coco_url": "http://images.org/a.png"},
    ],
)
def test_coco_photographs_may_be_named_in_other_ways(tmp_path: Path, names: dict[str, Any]) -> None:
    path = written(tmp_path, "b.json", coco({"bbox": [20, 30, 40, 50]}, **names))
    assert boxes_of(path) == [[20, 30, 40, 50]]


GOOD = {"bbox": [20, 30, 40, 50]}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("b.json", coco(GOOD, {"bbox": [1, 2, 3]}), "annotation 1 `bbox` has 3 numbers, not 4"),
        ("b.json", coco({"image_id": 9, **GOOD}, GOOD), "annotation 0 is of image 9"),
        ("b.json", coco({}, GOOD), "annotation 0 has no box with an area"),
        ("b.json", coco(GOOD, {"segmentation": {"size": [2, 1], "counts": [0, 2]}}),
         "annotation 1 has a mask and no box; export boxes"),
        ("b.json", coco(GOOD, {"keypoints": [1, 2]}), "annotation 1 `keypoints` has a number of values"),
        ("b.csv", "image,x,y,w,h\na.png,20,30,40,50\na.png,1,2,3\n", "line 3 has 4 columns"),
        ("b.csv", "image,x,y,w,h\na.png,20,30,40,\na.png,20,30,40,50\n", "line 2 `h` holds something"),
        ("y/a.txt", "0 0.4 0.275 0.4 0.25\n0 0.4\n", "line 2 has 2 numbers"),
        ("v/a.xml", "<annotation><object><bndbox><xmin>21</xmin><ymin>31</ymin><xmax>60</xmax><ymax>80"
         "</ymax></bndbox></object><object><bndbox><xmin>1</xmin></bndbox></object></annotation>",
         "object 1 has no `ymin`"),
        ("a.xml", '<annotations><image name="a.png"><box xtl="20" ytl="30" xbr="60" ybr="80"/>'
         '<box xtl="2"/></image></annotations>', "a.png, shape 1 has no `ytl`"),
    ],
)  # fmt: skip
def test_a_slip_costs_one_annotation(tmp_path: Path, name: str, content: Any, says: str) -> None:
    path = written(tmp_path, name, content)
    boxes = path if "/" not in name else path.parent
    assert boxes_of(boxes) == [pytest.approx([20, 30, 40, 50])]
    ((where, why),) = read_boxes(boxes).slips
    assert where == path
    assert why.startswith(says)


POSE = "0 0.4 0.275 0.4 0.25 0.3 0.2 2 0.5 0.3 0 0.6 0.35 1"


def test_a_pose_is_a_box_and_landmarks(tmp_path: Path) -> None:
    written(tmp_path, "data.yaml", "names: [ear]\nkpt_shape: [3, 3]\n")
    (ear,) = ears_of(written(tmp_path, "labels/a.txt", POSE).parent)
    assert ear.box == pytest.approx((20, 30, 40, 50))
    np.testing.assert_allclose(ear.points, [(30, 40), (np.nan, np.nan), (60, 70)])


def test_a_pose_may_have_no_visibility_and_a_confidence(tmp_path: Path) -> None:
    written(tmp_path, "data.yaml", "names: [ear]\nkpt_shape: [2, 2]\n")
    (ear,) = ears_of(written(tmp_path, "a.txt", "0 0.4 0.275 0.4 0.25 0.3 0.2 0 0 0.9").parent)
    np.testing.assert_allclose(ear.points, [(30, 40), (np.nan, np.nan)])


# Box 0.2 to 0.6, 0.15 to 0.4.
YOLO_BOX = "0 0.4 0.275 0.4 0.25"


@pytest.mark.parametrize("names", [("classes.txt", "ear\n"), ("data.yaml", "names: [ear]\n")])
@pytest.mark.parametrize(
    "line",
    [
        POSE,
        f"{YOLO_BOX} 0.3 0.2 0.5 0.3",
        f"{YOLO_BOX} 0.199999 0.275 0.6000004 0.275 0.4 0.149999",  # rounded
        f"{YOLO_BOX} 0.3 0.2 0.91 0.5 0.3 0.89",  # points with confidences
        f"{YOLO_BOX} 0.3 0.2 0.91 0.5 0.3 0.89 0.5 0.2 0.7 0.97 2",  # of a tracked box
        f"{YOLO_BOX} 0.62 0.2 1 0.5 0.41 1 0.9 0.9 1 0.3 0.3 1",  # a little outside, and one far away
    ],
)
def test_what_may_be_a_pose_or_an_outline_is_refused(
    tmp_path: Path, line: str, names: tuple[str, str]
) -> None:
    written(tmp_path, *names)
    with pytest.raises(EarTeachError, match="line 1 may be an outline or the points of a pose"):
        read_boxes(written(tmp_path, "a.txt", line).parent)


@pytest.mark.parametrize(
    ("lines", "dataset", "box"),
    [
        # Of different lengths.
        (["0.2 0.15 0.6 0.15 0.6 0.4 0.2 0.4", "0.2 0.15 0.6 0.15 0.6 0.4 0.2 0.4 0.2 0.2"],
         "names: [ear]", [20, 30, 40, 50]),
        # The corners of a turned box, of which the last two lie in the box that the others would make.
        (["0.6 0.7 0.8 0.6 0.9 0.8 0.7 0.9"], "names: [ear]", [60, 120, 30, 60]),
        (["0.6 0.7 0.8 0.7 0.9 0.8 0.7 0.8"], "names: [ear]\nkpt_shape: null", [60, 140, 30, 20]),
    ],
)  # fmt: skip
def test_what_is_certainly_an_outline(
    tmp_path: Path, lines: list[str], dataset: str, box: list[float]
) -> None:
    written(tmp_path, "data.yaml", dataset)
    path = written(tmp_path, "a.txt", "".join(f"0 {line}\n" for line in lines))
    assert boxes_of(path.parent) == [pytest.approx(box)]


def test_an_outline_does_not_reach_beyond_the_photograph(tmp_path: Path) -> None:
    content = f"{YOLO_BOX}\n0 0.2 0.1 0.9 0.1 2 0.9\n0 0.2 0.1 0.9 0.1 0.8 0.9 0.1 0.9\n"
    path = written(tmp_path, "a.txt", content)
    assert len(boxes_of(path.parent)) == 2
    ((_, why),) = read_boxes(path.parent).slips
    assert why.startswith("line 2 has the value 2, which is not a fraction")


def test_the_names_of_classes_have_the_numbers_of_their_lines(tmp_path: Path) -> None:
    written(tmp_path, "y/classes.txt", "head\n\near\n\n")
    (ear,) = ears_of(written(tmp_path, "y/a.txt", f"1 0.1 0.1 0.1 0.1\n2{YOLO_BOX[1:]}\n").parent)
    assert ear.box == pytest.approx((20, 30, 40, 50))


def test_classes_are_looked_for_above_the_labels_and_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "here/data.yaml", "names: [ear, nose]\n")
    written(tmp_path, "labels/a.txt", f"0 0.1 0.1 0.1 0.1\n1{YOLO_BOX[1:]}\n")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(EarTeachError, match=r"--boxes \.\./labels: has boxes of 0, 1, and none"):
        read_boxes(Path("../labels"))
    written(tmp_path, "data.yaml", "names: [nose, ear]\n")
    assert boxes_of(Path("../labels")) == [pytest.approx([20, 30, 40, 50])]


def test_names_beside_the_labels_do_not_hide_the_pose_above(tmp_path: Path) -> None:
    written(tmp_path, "data.yaml", "names: [other]\nkpt_shape: [3, 3]\n")
    written(tmp_path, "labels/classes.txt", "ear\n")
    (ear,) = ears_of(written(tmp_path, "labels/a.txt", POSE).parent)
    assert (ear.category, ear.box) == ("ear", pytest.approx((20, 30, 40, 50)))
    np.testing.assert_allclose(ear.points, [(30, 40), (np.nan, np.nan), (60, 70)])


def labelme(*shapes: dict[str, Any]) -> dict[str, Any]:
    return {"imagePath": "a.png", "imageData": None, "shapes": [*shapes]}


def rectangle(left: int, **fields: Any) -> dict[str, Any]:
    corners = [[left, 30], [left + 40, 80]]
    return {"label": "ear", "shape_type": "rectangle", "points": corners, **fields}


def point(label: str, x: float, y: float, **fields: Any) -> dict[str, Any]:
    return {"label": label, "shape_type": "point", "points": [[x, y]], **fields}


def test_single_points_go_to_the_ear_that_they_lie_on_in_the_order_of_their_names(
    tmp_path: Path,
) -> None:
    """In the order of their names: p10 comes after p2. The second ear has no p2."""
    path = written(tmp_path, "a.json", labelme(
        point("p10", 30, 40), rectangle(20), point("p2", 50, 70), rectangle(55), point("p10", 80, 50),
    ))  # fmt: skip
    first, second = ears_of(path)
    assert (first.box, second.box) == ((20, 30, 40, 50), (55, 30, 40, 50))
    np.testing.assert_array_equal(first.points, [(50, 70), (30, 40)])
    np.testing.assert_array_equal(second.points, [(np.nan, np.nan), (80, 50)])


def test_a_group_binds_more_than_the_place(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", labelme(
        rectangle(20, group_id=1), rectangle(25, group_id=2), point("p", 40, 50, group_id=2),
    ))  # fmt: skip
    by_left = {ear.box[0]: ear.points for ear in ears_of(path) if ear.box}
    assert by_left[20] is None
    np.testing.assert_array_equal(by_left[25], [(40, 50)])


def test_points_alone_make_an_ear(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", labelme(point("x", 20, 30), point("x", 60, 80)))
    assert boxes_of(path) == [[20, 30, 40, 50]]


@pytest.mark.parametrize(
    "shape",
    [
        {"shape_type": "polygon", "points": [[20, 30], [60, 50], [30, 80]]},
        {"shape_type": "circle", "points": [[40, 55], [40, 80]]},
        {"shape_type": "rectangle", "points": [[20, 30], [60, 30], [60, 80], [20, 80]]},
    ],
)
def test_labelme_shapes(tmp_path: Path, shape: dict[str, Any]) -> None:
    path = written(tmp_path, "a.json", labelme({"label": "ear", **shape}))
    wanted = [15, 30, 50, 50] if shape["shape_type"] == "circle" else [20, 30, 40, 50]
    assert boxes_of(path) == [wanted]


def cvat(shapes: str) -> str:
    return (
        f'<annotations><image name="a.png" width="100" height="200">{shapes}</image></annotations>'
    )


@pytest.mark.parametrize(
    ("shapes", "box"),
    [
        ('<ellipse label="ear" cx="40" cy="55" rx="20" ry="25"/>', (20, 30, 40, 50)),
        ('<mask label="ear" rle="3" left="20" top="30" width="40" height="50"/>', (20, 30, 40, 50)),
        ('<box label="ear" xtl="20" ytl="30" xbr="60" ybr="80" rotation="90"/>', (15, 35, 50, 40)),
        ('<points label="ear" points="20,30;60,80"/>', (20, 30, 40, 50)),
        ('<polyline label="ear" points="20,30;60,80;40,40"/>', (20, 30, 40, 50)),
    ],
)
def test_cvat_shapes(tmp_path: Path, shapes: str, box: tuple[float, ...]) -> None:
    (found,) = boxes_of(written(tmp_path, "annotations.xml", cvat(shapes)))
    assert found == pytest.approx(box)


def test_the_points_of_a_cvat_skeleton_have_names(tmp_path: Path) -> None:
    skeleton = (
        '<skeleton label="s"><points label="2" points="60,80"/><points label="1" points="20,30"/>'
        '<points label="3" outside="1" points="0,0"/></skeleton>'
    )
    box = '<box label="ear" xtl="20" ytl="30" xbr="60" ybr="80"/>'
    (ear,) = ears_of(written(tmp_path, "annotations.xml", cvat(skeleton + box)))
    np.testing.assert_array_equal(ear.points, [(20, 30), (60, 80)])


def studio(**result: Any) -> list[dict[str, Any]]:
    whole = {"original_width": 100, "original_height": 200, **result}
    return [
        {"data": {"image": "/data/upload/3/0a1b2c3d-a.png"}, "annotations": [{"result": [whole]}]}
    ]


@pytest.mark.parametrize(
    ("result", "box"),
    [
        # Turned by 90 degrees around its upper left corner, which is then the upper right one.
        ({"type": "rectangle", "value": {"x": 60, "y": 15, "width": 50, "height": 20, "rotation": 90}},
         (20, 30, 40, 50)),
        ({"type": "polygonlabels", "value": {"points": [[20, 15], [60, 20], [30, 40]]}},
         (20, 30, 40, 50)),
        ({"type": "ellipselabels", "value": {"x": 40, "y": 27.5, "radiusX": 20, "radiusY": 12.5}},
         (20, 30, 40, 50)),
    ],
)  # fmt: skip
def test_label_studio_shapes(
    tmp_path: Path, result: dict[str, Any], box: tuple[float, ...]
) -> None:
    (found,) = boxes_of(written(tmp_path, "p.json", studio(**result)))
    assert found == pytest.approx(box, abs=0.1)


@pytest.mark.parametrize("turn", [float("inf"), float("nan")])
def test_a_box_turned_without_end_is_refused_in_words(tmp_path: Path, turn: float) -> None:
    box = {"x": 60, "y": 15, "width": 50, "height": 20, "rotation": turn}
    path = written(tmp_path, "p.json", studio(type="rectangle", value=box))
    with pytest.raises(EarTeachError, match=f"`rotation` is {turn}"):
        boxes_of(path)
    shape = f'<box label="ear" xtl="20" ytl="30" xbr="60" ybr="80" rotation="{turn}"/>'
    with pytest.raises(EarTeachError, match=f"`rotation` is {turn}"):
        boxes_of(written(tmp_path, "annotations.xml", cvat(shape)))


def test_a_photograph_without_end_is_refused_in_words(tmp_path: Path) -> None:
    box = {"x": 20, "y": 15, "width": 40, "height": 25}
    infinite = studio(type="rectangle", original_width=float("inf"), value=box)
    with pytest.raises(EarTeachError, match="`original_height` are inf and 200"):
        boxes_of(written(tmp_path, "p.json", infinite))


def test_label_studios_short_json(tmp_path: Path) -> None:
    size = {"original_width": 100, "original_height": 200}
    box = {"x": 20, "y": 15, "width": 40, "height": 25, "rectanglelabels": ["ear"], **size}
    point_of = {"x": 30, "y": 20, "keypointlabels": ["tip"], **size}
    task = {"image": "s3://bucket/a.png", "id": 1, "box": [box], "points": [point_of]}
    (ear,) = ears_of(written(tmp_path, "p.json", [task]))
    assert ear.box == pytest.approx((20, 30, 40, 50))
    np.testing.assert_allclose(ear.points, [(30, 40)])


@pytest.mark.parametrize(
    "shape",
    [
        {"name": "circle", "cx": 40, "cy": 55, "r": 25},
        {"name": "ellipse", "cx": 40, "cy": 55, "rx": 25, "ry": 25},
        {"name": "polygon", "all_points_x": [15, 65, 20], "all_points_y": [30, 40, 80]},
    ],
)
def test_via_shapes(tmp_path: Path, shape: dict[str, Any]) -> None:
    region = {"shape_attributes": shape, "region_attributes": {}}
    path = written(tmp_path, "v.json", {"a.png9": {"filename": "a.png", "regions": {"0": region}}})
    assert boxes_of(path) == [[15, 30, 50, 50]]


@pytest.mark.parametrize(
    "content",
    [
        [{"Labeled Data": "a.png", "Label": {"objects": [{"title": "ear"}]}}],  # Labelbox
        {"info": {}, "categories": {}, "items": [{"id": "a"}]},  # Datumaro
    ],
)
def test_what_other_tools_write_is_refused_with_advice(tmp_path: Path, content: Any) -> None:
    with pytest.raises(EarTeachError, match=r"of another kind.*export it as COCO 1\.0"):
        read_boxes(written(tmp_path, "b.json", content))


def test_a_voc_file_says_which_of_two_photographs_it_is_about(tmp_path: Path) -> None:
    box = "<bndbox><xmin>21</xmin><ymin>31</ymin><xmax>60</xmax><ymax>80</ymax></bndbox>"
    content = f"<annotation><filename>a.png</filename><object>{box}</object></annotation>"
    written(tmp_path, "v/a.XML", content)
    jpg, png = read_boxes(tmp_path / "v").of([Path("a.jpg"), Path("a.png")])
    assert jpg is None
    assert len(png or ()) == 1


def test_each_labelme_file_is_about_the_photograph_beside_it(tmp_path: Path) -> None:
    """As in a folder for each person, whose photographs have the same names."""
    for person, left in (("anna", 10), ("ben", 40)):
        content = {**labelme(rectangle(left)), "imagePath": "1.png"}
        written(tmp_path, f"labels/{person}/1.json", content)
    found = read_boxes(tmp_path / "labels").of([Path("anna/1.png"), Path("ben/1.png")])
    assert [ear.box[0] for ears in found for ear in ears or () if ear.box] == [10, 40]


def test_coco_ids_may_be_floats(tmp_path: Path) -> None:
    """As pandas writes them; the other box is a face."""
    kinds = [{"id": 1, "name": "face"}, {"id": 2, "name": "ear"}]
    ears = [{"image_id": 1.0, "category_id": 2.0, **GOOD},
            {"image_id": 1.0, "category_id": 1.0, "bbox": [0, 0, 9, 9]}]  # fmt: skip
    path = written(tmp_path, "b.json", {**coco(*ears, id=1), "categories": kinds})
    assert boxes_of(path) == [[20, 30, 40, 50]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"category_id": 7}, "is of category 7, which is not in `categories`"),
        ({"image_id": "two"}, "is of image two, an id of several"),
    ],
)
def test_coco_ids_that_say_nothing_are_refused(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    data = coco(GOOD, {**GOOD, **change})
    data["images"] += [{"id": "two", "file_name": name} for name in ("b.png", "c.png")]
    path = written(tmp_path, "b.json", {**data, "categories": [{"id": 1, "name": "ear"}]})
    assert boxes_of(path) == [[20, 30, 40, 50]]
    assert read_boxes(path).slips == ((path, f"annotation 1 {says}"),)


def test_label_studio_puts_something_before_the_names_of_uploads(tmp_path: Path) -> None:
    value = {"x": 20, "y": 15, "width": 40, "height": 25, "rectanglelabels": ["ear"]}
    path = written(tmp_path, "p.json", studio(value=value))
    for name in ("a.png", "0a1b2c3d-a.png", "photos/0a1b2c3d-a.png"):
        assert len(ears_of(path, name)) == 1


def test_two_uploads_of_one_name_are_refused(tmp_path: Path) -> None:
    value = {"x": 20, "y": 15, "width": 40, "height": 25, "rectanglelabels": ["ear"]}
    first, second = studio(value=value), studio(value=value)
    second[0]["data"]["image"] = "/data/upload/3/1a1b2c3d-a.png"
    path = written(tmp_path, "p.json", [*first, *second])
    with pytest.raises(EarTeachError, match=r"both 0a1b2c3d-a\.png and 1a1b2c3d-a\.png match a"):
        ears_of(path)


def test_a_plus_in_an_address_is_a_plus(tmp_path: Path) -> None:
    value = {"x": 20, "y": 15, "width": 40, "height": 25, "rectanglelabels": ["ear"]}
    tasks = studio(value=value)
    tasks[0]["data"]["image"] = "/data/local-files/?d=x/a+b%20c.png"
    assert len(ears_of(written(tmp_path, "p.json", tasks), "a+b c.png")) == 1


def test_boxes_of_a_tracker_end_in_a_confidence_and_a_number(tmp_path: Path) -> None:
    box = "0 0.4 0.275 0.4 0.25 0.91"
    other = box.replace("0.4", "0.5", 1)
    path = written(tmp_path, "a.txt", f"{box} 2\n{other} 17\n{box} 1\n").parent
    assert boxes_of(path) == [pytest.approx([left, 30, 40, 50]) for left in (20, 30)]
    assert read_boxes(path).slips[0][1].startswith("line 3 may be a box with a confidence")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("b.csv", "image,x,y,w,h,x\na.png,1,2,3,4,5\n", "has two columns named x"),
        ("y/data.yaml", "names: obj.names\n", "does not describe labels"),
    ],
)
def test_what_would_be_misread_is_refused(
    tmp_path: Path, name: str, content: str, says: str
) -> None:
    path = written(tmp_path, name, content)
    if "/" in name:
        path = written(tmp_path, "y/a.txt", "0 0.5 0.5 0.5 0.5\n").parent
    with pytest.raises(EarTeachError, match=says):
        read_boxes(path)


def test_blank_rows_of_a_spreadsheet_are_no_ears(tmp_path: Path) -> None:
    path = written(tmp_path, "b.csv", "image,x,y,w,h\na.png,20,30,40,50\n,,,,\n , ,,,\n")
    assert boxes_of(path) == [[20, 30, 40, 50]]
    assert read_boxes(path).slips == ()


def test_fractions_where_pixels_belong_are_no_box(tmp_path: Path) -> None:
    (ear,) = ears_of(written(tmp_path, "b.csv", "image,x,y,w,h\na.png,0.2,0.15,0.4,0.25\n"))
    with pytest.raises(Misfit, match="smaller than a pixel; are its values fractions"):
        ear.square(SIZE, 0.15)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-8-sig"])
def test_text_as_windows_writes_it(tmp_path: Path, encoding: str) -> None:
    start = "\ufeff" if encoding == "utf-16-be" else ""
    table = tmp_path / "b.csv"
    table.write_text(start + "image,x,y,w,h\r\na.png,20,30,40,50\r\n", encoding=encoding)
    assert boxes_of(table) == [[20, 30, 40, 50]]
    for name, content in (("classes.txt", "nose\near\n"), ("a.txt", "1 0.4 0.275 0.4 0.25\n")):
        (tmp_path / "y").mkdir(exist_ok=True)
        (tmp_path / "y" / name).write_text(start + content, encoding=encoding)
    (ear,) = ears_of(tmp_path / "y")
    assert ear.category == "ear"


def test_text_in_another_encoding_is_refused_in_words(tmp_path: Path) -> None:
    labels = written(tmp_path, "y/a.txt", "0 0.5 0.5 0.5 0.5\n").parent
    (labels / "classes.txt").write_bytes("耳朵\n".encode("gbk"))
    with pytest.raises(EarTeachError, match=r"classes\.txt: is not text in UTF-8; save it so"):
        read_boxes(labels)


def test_points_alone_know_the_size_of_their_photograph(tmp_path: Path) -> None:
    """So that a photograph that was enlarged since is not cut in the wrong place."""
    content = {
        **labelme(point("x", 20, 30), point("y", 60, 80)),
        "imageWidth": 50,
        "imageHeight": 99,
    }
    with pytest.raises(Misfit, match="has 100×200 pixels but was annotated at 50×99"):
        ears_of(written(tmp_path, "a.json", content))


def test_a_category_may_be_called_by_a_number(tmp_path: Path) -> None:
    data = {**coco({"category_id": 1, **GOOD}), "categories": [{"id": 1, "name": 7}]}
    assert boxes_of(written(tmp_path, "b.json", data)) == [[20, 30, 40, 50]]


def studio_box(left: float, **result: Any) -> dict[str, Any]:
    """A box at 20 or another x, 30 of 40 × 50 pixels."""
    value = {"x": left, "y": 15, "width": 40, "height": 25, "rectanglelabels": ["ear"]}
    size = {"original_width": 100, "original_height": 200}
    return {"type": "rectanglelabels", "value": value, **size, **result}


def skeleton(label: str, *points: tuple[str, int, int], inside: str = "") -> str:
    shapes = (f'<points label="{name}" points="{x},{y}"/>' for name, x, y in points)
    return f'<skeleton label="{label}">{"".join(shapes)}{inside}</skeleton>'


CVAT_EAR = '<box label="ear" xtl="20" ytl="30" xbr="60" ybr="80"/>'
FACE = '<box label="face" xtl="0" ytl="0" xbr="99" ybr="199"/>'
EAR_POINTS = (("1", 20, 30), ("2", 60, 80))
HAND_POINTS = (("1", 70, 100), ("2", 90, 150))


@pytest.mark.parametrize(
    ("shapes", "points"),
    [
        (skeleton("hand", *HAND_POINTS) + CVAT_EAR, None),
        ('<points label="hand" points="70,100;90,150"/>' + CVAT_EAR, None),
        (FACE + skeleton("left ear", *EAR_POINTS), [(20, 30), (60, 80)]),
        (FACE + '<points label="ear" points="20,30;60,80"/>', [(20, 30), (60, 80)]),
        (FACE + CVAT_EAR + '<points label="tip" points="25,40"/>', [(25, 40)]),
        (skeleton("ear", *EAR_POINTS, inside="<attribute>good</attribute>"), [(20, 30), (60, 80)]),
    ],
)
def test_points_are_of_the_ear_whatever_else_is_in_the_photograph(
    tmp_path: Path, shapes: str, points: list[tuple[int, int]] | None
) -> None:
    path = written(tmp_path, "c.xml", cvat(shapes))
    (ear,) = ears_of(path)
    assert boxes_of(path) == [[20, 30, 40, 50]]
    assert read_boxes(path).slips == ()
    np.testing.assert_array_equal(ear.points, points)


@pytest.mark.parametrize(
    "shapes",
    [
        skeleton("left ear", *EAR_POINTS) + skeleton("right ear", *HAND_POINTS),
        skeleton("ear", *EAR_POINTS) + skeleton("ear", *HAND_POINTS),
        '<points label="ear" points="20,30;60,80"/><points label="ear" points="70,100;90,150"/>',
    ],
)
def test_each_cvat_shape_of_points_is_an_ear(tmp_path: Path, shapes: str) -> None:
    path = written(tmp_path, "c.xml", cvat(shapes))
    assert boxes_of(path) == [[20, 30, 40, 50], [70, 100, 20, 50]]
    first, second = (ear.points for ear in ears_of(path))
    np.testing.assert_array_equal(first, [(20, 30), (60, 80)])
    np.testing.assert_array_equal(second, [(70, 100), (90, 150)])


def test_single_points_beside_ears_belong_to_none_and_are_listed(tmp_path: Path) -> None:
    face = [("eye l", 70, 100), ("eye r", 90, 150)]
    key_points = [
        studio_box(20, type="keypointlabels", value={"x": x, "y": y / 2, "keypointlabels": [name]})
        for name, x, y in [*face, ("tip", 30, 40)]
    ]
    task = studio(**studio_box(20))
    task[0]["annotations"][0]["result"] += key_points
    paths = [
        written(tmp_path, "l.json", labelme(
            rectangle(20), *(point(*each) for each in face), point("tip", 30, 40))),
        written(tmp_path, "s.json", task),
    ]  # fmt: skip
    for path in paths:
        (ear,) = ears_of(path)
        assert ear.box == pytest.approx((20, 30, 40, 50))
        np.testing.assert_allclose(ear.points, [(30, 40)])
        ((_, why),) = read_boxes(path).slips
        assert "a.png has points outside the boxes of ears (eye l, eye r); if" in why


def test_points_of_a_persons_group_go_to_the_ear_that_they_lie_on(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", labelme(
        rectangle(0, group_id=1), rectangle(55, group_id=1),
        point("a", 5, 40, group_id=1), point("a", 60, 40, group_id=1),
    ))  # fmt: skip
    first, second = (ear.points for ear in ears_of(path))
    np.testing.assert_array_equal(first, [(5, 40)])
    np.testing.assert_array_equal(second, [(60, 40)])


def test_repeated_points_without_a_group_are_no_ear(tmp_path: Path) -> None:
    """They may be those of two ears."""
    twice = [point("a", 20, 30), point("b", 60, 80), point("a", 70, 100), point("b", 90, 150)]
    written(tmp_path, "l/a.json", labelme(*twice))
    with pytest.raises(EarTeachError, match=r"a\.json: a\.png has several points named a for one"):
        read_boxes(tmp_path / "l")
    written(tmp_path, "l/b.json", {**labelme(rectangle(20), *twice[:2]), "imagePath": "b.png"})
    a, b = read_boxes(tmp_path / "l").of([Path("a.png"), Path("b.png")])
    assert a == ()
    np.testing.assert_array_equal((b or ())[0].points, [(20, 30), (60, 80)])


def test_points_without_names_must_be_as_many_in_each_ear(tmp_path: Path) -> None:
    shapes = "".join(
        f'<points label="ear" points="{points}"/>'
        for points in ("20,30;60,80;40,40", "70,100;90,150", "1,2;3,4;5,6")
    )
    path = written(tmp_path, "c.xml", cvat(shapes))
    assert boxes_of(path) == [[20, 30, 40, 50], [1, 2, 4, 4]]
    assert read_boxes(path).slips == (
        (path, "a.png has an ear with 2 points of one name, where most have 3; give each landmark its "
         "own name"),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["CVAT", "VIA"])
def test_single_points_are_in_the_order_of_what_tells_them_apart(tmp_path: Path, kind: str) -> None:
    """In VIA the first attribute is the same for all. The last photograph lacks a point."""
    helix, lobe, tragus = ("helix", 25, 35), ("lobe", 30, 75), ("tragus", 55, 55)
    photos = {"a.png": [lobe, tragus, helix], "b.png": [tragus, helix]}
    if kind == "CVAT":
        images = (
            f'<image name="{name}">{CVAT_EAR}'
            + "".join(f'<points label="{each}" points="{x},{y}"/>' for each, x, y in its)
            + "</image>"
            for name, its in photos.items()
        )
        path = written(tmp_path, "c.xml", f"<annotations>{''.join(images)}</annotations>")
    else:
        box = {"name": "rect", "x": 20, "y": 30, "width": 40, "height": 50}
        path = written(tmp_path, "v.json", {
            name: {"filename": name, "regions": [
                {"shape_attributes": box, "region_attributes": {"type": "ear"}},
                *({"shape_attributes": {"name": "point", "cx": x, "cy": y},
                   "region_attributes": {"type": "landmark", "id": each}} for each, x, y in its)]}
            for name, its in photos.items()
        })  # fmt: skip
    ((first,), (second,)) = (ears_of(path, name) for name in photos)
    np.testing.assert_array_equal(first.points, [(25, 35), (30, 75), (55, 55)])
    np.testing.assert_array_equal(second.points, [(25, 35), (np.nan, np.nan), (55, 55)])


@pytest.mark.parametrize("tag", ["cuboid", "sphere"])
def test_a_cvat_shape_that_is_not_read_is_listed(tmp_path: Path, tag: str) -> None:
    path = written(tmp_path, "c.xml", cvat(f'<tag label="ear"/>{CVAT_EAR}<{tag} label="ear"/>'))
    assert boxes_of(path) == [[20, 30, 40, 50]]
    assert read_boxes(path).slips == (
        (path, f"a.png, shape 2 is a {tag}, which is not read; draw a box"),
    )


def test_a_label_studio_task_of_two_photographs(tmp_path: Path) -> None:
    """A box is on the one that its tag names, and on none if that is not certain."""
    data = {"one": "/data/upload/1/0a1b2c3d-a.png", "two": "/data/upload/1/1a1b2c3d-b.png"}
    for tags, lefts in (("one", "two"), ([20], [50])), (("x", "two"), ([], [50])):
        results = [studio_box(left, to_name=tag) for left, tag in zip((20, 50), tags, strict=True)]
        path = written(tmp_path, "p.json", [{"data": data, "annotations": [{"result": results}]}])
        found = read_boxes(path)
        for ears, its in zip(found.of([Path("a.png"), Path("b.png")]), lefts, strict=True):
            assert [ear.box[0] for ear in ears or () if ear.box] == pytest.approx(its)
    ((_, why),) = found.slips
    assert why.startswith("task 0, result 0 may be on any of 0a1b2c3d-a.png, 1a1b2c3d-b.png; ")


def test_the_parts_of_a_label_studio_region_are_one_ear(tmp_path: Path) -> None:
    """Its label, and the side that is chosen for it, are results of their own."""
    size = {"x": 20, "y": 15, "width": 40, "height": 25}
    parts = [
        {"type": "labels", "value": {**size, "labels": ["hand"]}, "id": "other"},
        {"type": "rectangle", "value": size, "id": "other"},
        {"type": "rectangle", "value": size, "id": "it"},
        {"type": "labels", "value": {**size, "labels": ["ear"]}, "id": "it"},
        {"type": "choices", "value": {**size, "choices": ["right"]}, "id": "it"},
    ]
    task = studio(**studio_box(20))
    task[0]["annotations"][0]["result"] = [studio_box(20, **part) for part in parts]
    path = written(tmp_path, "p.json", task)
    (ear,) = ears_of(path)
    assert (ear.category, ear.side) == ("ear", "right")
    assert read_boxes(path).slips == ()


@pytest.mark.parametrize(
    ("data", "photograph"),
    [
        ({"image": "/data/upload/1/0a1b2c3d-%C3%84nne.png"}, "Änne.png"),
        ({"note": "n/a", "photo": "s3://b/x/q.png"}, "q.png"),
        ({"image": "a.png", "note": "n/a"}, "a.png"),
        ({"image": "/data/upload/1/0a1b2c3d-a.png", "original": "b.png"}, "a.png"),
    ],
)
def test_the_photograph_of_a_label_studio_task(
    tmp_path: Path, data: dict[str, str], photograph: str
) -> None:
    path = written(tmp_path, "p.json", [{**studio(**studio_box(20))[0], "data": data}])
    assert len(ears_of(path, photograph)) == 1


def test_predictions_are_no_annotations(tmp_path: Path) -> None:
    task = {**studio()[0], "annotations": [], "predictions": [{"result": [studio_box(20)]}]}
    with pytest.raises(EarTeachError, match="task 0 holds only predictions; submit them"):
        read_boxes(written(tmp_path, "p.json", [task]))


def test_voc_names_may_be_quoted_as_character_data(tmp_path: Path) -> None:
    box = "<bndbox><xmin>21</xmin><ymin>31</ymin><xmax>60</xmax><ymax>80</ymax></bndbox>"
    name = "<filename><![CDATA[a.png]]></filename>"
    written(tmp_path, "v/a.xml", f"<annotation>{name}<object>{box}</object></annotation>")
    assert boxes_of(tmp_path / "v") == [[20, 30, 40, 50]]


def test_a_labelme_path_on_another_computers_drive(tmp_path: Path) -> None:
    for person in ("anna", "ben"):
        content = {**labelme(rectangle(20)), "imagePath": f"D:\\ears\\{person} raw\\1.png"}
        written(tmp_path, f"l/{person}/1.json", content)
    found = read_boxes(tmp_path / "l").of([Path("anna/1.png"), Path("ben/1.png")])
    assert [len(ears or ()) for ears in found] == [1, 1]


def test_several_categories_listed_and_one_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    kinds = [{"id": 1, "name": "head"}, {"id": 2, "name": "ear"}]
    data = {**coco({"category_id": 1, **GOOD}), "categories": kinds}
    assert boxes_of(written(tmp_path, "b.json", data)) == [[20, 30, 40, 50]]
    assert "using the boxes of head, the only category, as ears" in caplog.text


PEOPLE = {"anna": 10, "ben": 40}  # the left side of the box


def for_each_person(folder: Path, tool: str) -> Path:
    for person, left in PEOPLE.items():
        if tool == "CVAT":
            box = f'<box label="ear" xtl="{left}" ytl="30" xbr="{left + 40}" ybr="80"/>'
            written(folder, f"labels/{person}/annotations.xml", cvat(box))
        elif tool == "COCO":
            written(folder, f"labels/{person}/b.json", coco({"bbox": [left, 30, 40, 50]}))
        else:
            shape = {"name": "rect", "x": left, "y": 30, "width": 40, "height": 50}
            region = {"shape_attributes": shape, "region_attributes": {}}
            content = {"a.png9": {"filename": "a.png", "regions": [region]}}
            written(folder, f"labels/{person}/v.json", content)
    return folder / "labels"


@pytest.mark.parametrize("tool", ["COCO", "CVAT", "VIA"])
def test_each_file_is_about_the_photographs_of_its_folder(tmp_path: Path, tool: str) -> None:
    labels = read_boxes(for_each_person(tmp_path, tool))
    found = labels.of([Path("x/anna/a.png"), Path("x/ben/a.png"), Path("x/cora/a.png")])
    assert [ear.box[0] for ears in found for ear in ears or () if ear.box] == [10, 40]
    found = labels.of([Path("anna/a.png"), Path("cora/a.png")])  # without Ben's
    assert [[ear.box for ear in ears] if ears else None for ears in found] == [
        [(10, 30, 40, 50)],
        None,
    ]
    with pytest.raises(EarTeachError, match=r"both anna/a\.png and ben/a\.png match a\.png"):
        labels.of([Path("a.png")])
    with pytest.raises(EarTeachError, match=r"has no entry for cora/a\.png"):
        labels.of([Path("cora/a.png")])


def test_labels_may_lie_in_a_folder_of_their_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    written(tmp_path, "set/annotations/b.json", coco({"bbox": [20, 30, 40, 50]}))
    for name in ("a.png", "images/a.png", "x/annotations/a.png"):
        caplog.clear()
        assert len(ears_of(tmp_path / "set", name)) == 1
        assert ("no photograph lies in a folder like those" in caplog.text) == ("annot" not in name)


@pytest.mark.parametrize(
    ("label", "photograph"),
    [
        ("train/labels/a.txt", "train/images/a.png"),
        ("labels/train/a.txt", "pictures/train/a.png"),
        ("VOC2012/Annotations/a.xml", "VOC2012/JPEGImages/a.png"),
    ],
)
def test_labels_and_photographs_in_folders_beside_each_other(
    tmp_path: Path, label: str, photograph: str
) -> None:
    corners = "<xmin>21</xmin><ymin>31</ymin><xmax>60</xmax><ymax>80</ymax>"
    voc = f"<annotation><object><bndbox>{corners}</bndbox></object></annotation>"
    written(tmp_path, f"y/{label}", YOLO_BOX if label.endswith("txt") else voc)
    (ear,) = ears_of(tmp_path / "y", photograph)
    assert ear.box == pytest.approx((20, 30, 40, 50))


def test_a_folder_of_several_kinds_of_labels_says_which_it_uses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name in ("a.txt", "b.txt"):
        written(tmp_path, f"y/{name}", YOLO_BOX)
    written(tmp_path, "y/c.json", labelme(rectangle(20)))
    assert len(ears_of(tmp_path / "y")) == 1
    assert "using its 2 .txt files, not its .json (1); move" in caplog.text


def test_the_same_ears_in_two_files_are_cut_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    points = {"keypoints": [29.5, 39.5, 2, 49.5, 59.5, 2]}
    written(tmp_path, "an/instances.json", coco(GOOD, {"bbox": [5, 5, 9, 9]}))
    written(tmp_path, "an/person_keypoints.json", coco({**GOOD, **points}))
    first, second = ears_of(tmp_path / "an")
    assert (first.box, second.box) == ((20, 30, 40, 50), (5, 5, 9, 9))
    np.testing.assert_array_equal(first.points, [(30, 40), (50, 60)])
    assert "1 boxes are repeated; each is used once" in caplog.text


@pytest.mark.parametrize(
    ("content", "says"),
    [("", "is not a JSON file"), ({"a": 1}, "is JSON of another kind, which is not read")],
)
def test_another_json_among_the_labels_is_left_out(tmp_path: Path, content: Any, says: str) -> None:
    written(tmp_path, "labels/a.json", labelme(rectangle(20)))
    other = written(tmp_path, "labels/b.json", content)
    assert boxes_of(other.parent) == [[20, 30, 40, 50]]
    ((where, why),) = read_boxes(other.parent).slips
    assert where == other
    assert why.startswith(says)


@pytest.mark.parametrize(
    ("label", "image_path"),
    [("labels/anna/1.json", "1.png"), ("labels/anna/1.json", "../../images/anna/1.png")],
)
def test_labelme_files_in_folders_beside_the_photographs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, label: str, image_path: str
) -> None:
    caplog.set_level(logging.INFO)
    written(tmp_path, f"y/{label}", {**labelme(rectangle(20)), "imagePath": image_path})
    assert len(ears_of(tmp_path / "y", "images/anna/1.png")) == 1
    assert "like those of the files" not in caplog.text
