"""Ears are cut where their boxes are, whatever the format."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from earteach.data.annotations.annotation import is_ear, side_of
from earteach.data.annotations.boxes import read_boxes
from earteach.data.crops import Crop
from earteach.data.prepare import Prepared, prepare
from earteach.data.split import Split
from earteach.errors import EarTeachError
from tests.data.annotations.formats import FORMATS, Photo, coco, table, voc

SIZE = 16
PHOTOS = [
    Photo("anna/1.png", 200, 150, [(40, 30, 40, 60, "left")]),
    Photo("bo/1.png", 160, 240, [(3, 4, 50, 64, "right"), (90, 150, 60, 80, "left")]),
    Photo("bo/2.png", 120, 100, []),
    Photo("chi x/ö.png", 90, 130, [(10, 20, 60, 100, "right")]),
]
VALIDATION = Split(val_groups="^bo")


def picture(photo: Photo) -> np.ndarray:
    """Smooth and without symmetry, so that each crop looks different."""
    rows, columns = np.mgrid[: photo.height, : photo.width]
    phase = len(photo.name) + photo.width
    waves = [np.sin(columns / 17 + phase), np.sin(rows / 23 + 1), np.sin((rows + 2 * columns) / 31)]
    return np.rint(127 + 120 * np.dstack(waves)).astype(np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for photo in PHOTOS:
        path = tmp_path / "photos" / photo.name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(photo)).save(path)
    return tmp_path / "photos"


Box = tuple[int, int, int, int]


def expected_box(ear: tuple[int, int, int, int, str], margin: float) -> Box:
    x, y, w, h, _ = ear
    side = round(max(w, h) * (1 + 2 * margin))
    return round(x + w / 2 - side / 2), round(y + h / 2 - side / 2), side, side


def box_of(row: dict[str, str]) -> Box:
    left, top, width, height = (int(row[key]) for key in ("left", "top", "width", "height"))
    return left, top, width, height


def expected_crop(photo: Photo, box: Box) -> np.ndarray:
    """The square, from a photograph that goes on as its mirror image; each pixel a mean over an area."""
    left, top, side, _ = box
    around = 300
    padded = np.pad(picture(photo), ((around,) * 2, (around,) * 2, (0, 0)), mode="symmetric")
    cut = padded[around + top : around + top + side, around + left : around + left + side]
    edges = np.linspace(0, side, SIZE + 1)
    pixel = np.arange(side)
    weights = np.clip(
        np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel), 0, None
    )
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("ya,xb,abc->yxc", weights, weights, cut.astype(float))


def rows_of(result: Prepared) -> list[tuple[np.ndarray, dict[str, str]]]:
    """Each image with its line of the manifest."""
    found = []
    for part in (result.train, result.val):
        name = part.path.name.replace("teacher.npy", "manifest.csv")
        with part.path.with_name(name).open(newline="", encoding="utf-8") as file:
            found += zip(np.load(part.path), csv.DictReader(file), strict=True)
    return found


@pytest.mark.parametrize(
    ("kind", "margin"), [("COCO", 0.0), ("COCO", 0.6), *((kind, 0.15) for kind in FORMATS)]
)
def test_ears_are_cut_where_their_boxes_are(
    photos: Path, tmp_path: Path, kind: str, margin: float
) -> None:
    boxes = FORMATS[kind](tmp_path, PHOTOS)
    result = prepare(
        photos, tmp_path / "out", crop=Crop(SIZE, margin=margin), boxes=boxes, split=VALIDATION
    )
    assert result.rejected == ()
    assert result.without_ears == 1
    assert (result.train.images, result.val.images) == (2, 2)
    wanted = [(photo, ear) for photo in PHOTOS for ear in photo.ears]
    for image, row in rows_of(result):
        box = box_of(row)
        fits = [
            (photo, ear)
            for photo, ear in wanted
            if row["source"] == str(photos / photo.name)
            and np.abs(np.subtract(box, expected_box(ear, margin))).max() <= 1  # rounded
        ]
        assert len(fits) == 1
        wanted.remove(fits[0])
        photo = fits[0][0]
        assert np.abs(image - expected_crop(photo, box)).max() <= 4
        assert [row["photograph_width"], row["photograph_height"]] == [
            str(photo.width), str(photo.height),
        ]  # fmt: skip
    assert not wanted


@pytest.mark.parametrize(
    ("kind", "side"), [("COCO", "right"), *((kind, "left") for kind in FORMATS)]
)
def test_ears_of_the_other_side_are_mirrored(
    photos: Path, tmp_path: Path, kind: str, side: str
) -> None:
    boxes = FORMATS[kind](tmp_path, PHOTOS)
    plain = prepare(photos, tmp_path / "a", crop=Crop(SIZE), boxes=boxes, split=VALIDATION)
    crop = Crop(SIZE, side=side)  # type: ignore[arg-type]
    turned = prepare(photos, tmp_path / "b", crop=crop, boxes=boxes, split=VALIDATION)
    assert (turned.mirrored, turned.side_unknown) == (2, 0)
    sides = {(photo.name, ear[:2]): ear[4] for photo in PHOTOS for ear in photo.ears}
    for (image, before), (mirrored, after) in zip(rows_of(plain), rows_of(turned), strict=True):
        name = Path(after["source"]).relative_to(photos).as_posix()
        near = [
            s for (n, at), s in sides.items() if n == name and abs(at[1] - int(after["top"])) < 30
        ]
        assert len(near) == 1
        assert after["mirrored"] == str(int(near[0] != side))
        assert {**after, "mirrored": "0"} == before
        np.testing.assert_array_equal(mirrored, image[:, ::-1] if near[0] != side else image)


def test_the_side_may_be_in_the_name(photos: Path, tmp_path: Path) -> None:
    names = {"anna/1.png": "1_left", "chi x/ö.png": "ö_R", "bo/1.png": "1_L", "bo/2.png": "2_L"}
    for name, stem in names.items():
        (photos / name).rename((photos / name).with_stem(stem))
    crop = Crop(SIZE, side="left", side_pattern="_(left|L|R)")
    result = prepare(photos, tmp_path / "out", crop=crop, split=VALIDATION)
    mirrored = [row["source"] for _, row in rows_of(result) if row["mirrored"] == "1"]
    assert mirrored == [str(photos / "chi x" / "ö_R.png")]
    assert result.side_unknown == 0
    words = "finds '_' in anna/1_left.png, which is neither left nor"
    with pytest.raises(EarTeachError, match=words):
        prepare(photos, tmp_path / "new", crop=Crop(SIZE, side_pattern="_"))
    ones = Crop(SIZE, side="right", side_pattern="1_(left|L)")
    result = prepare(photos, tmp_path / "out", crop=ones, split=VALIDATION)
    assert (result.mirrored, result.side_unknown) == (2, 2)


def test_a_column_may_say_who_is_who(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text(
        "path,left,top,width,height,person\n"
        "anna/1.png,40,30,40,60,P1\nbo/1.png,3,4,50,64,P2\nbo/1.png,90,150,60,80,P1\n"
    )
    result = prepare(
        photos, tmp_path / "out", crop=Crop(SIZE), boxes=path, group_by="column",
        split=Split(val_groups="P2"),
    )  # fmt: skip
    assert [row["group"] for _, row in rows_of(result)] == ["P1", "P1", "P2"]
    assert result.without_ears == 2
    with pytest.raises(EarTeachError, match=r"--group-by column: has no person for anna/1.png"):
        prepare(photos, tmp_path / "new", boxes=table(tmp_path, PHOTOS), group_by="column")


def test_a_manifest_is_a_table_of_boxes(photos: Path, tmp_path: Path) -> None:
    """The same crops at another size."""
    one = prepare(
        photos, tmp_path / "a", crop=Crop(32), boxes=coco(tmp_path, PHOTOS), split=VALIDATION
    )
    both = tmp_path / "both.csv"
    lines = [
        path.read_text().splitlines() for path in sorted((tmp_path / "a").glob("*_manifest.csv"))
    ]
    both.write_text("\n".join([*lines[0], *lines[1][1:]]))
    again = prepare(photos, tmp_path / "b", crop=Crop(32, margin=0), boxes=both, split=VALIDATION)
    for part in ("train", "val"):
        first, second = (np.load(getattr(each, part).path) for each in (one, again))
        np.testing.assert_array_equal(first, second)


def test_keypoints_become_landmarks_of_the_crop(photos: Path, tmp_path: Path) -> None:
    path = coco(tmp_path, PHOTOS)
    data = json.loads(path.read_text())
    for entry in data["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["keypoints"] = [x + 9.5, y + 4.5, 2, x + w / 2, y + h / 2, 1, 0, 0, 0]
    path.write_text(json.dumps(data))
    crop = Crop(SIZE, margin=0, side="left")
    result = prepare(photos, tmp_path / "out", crop=crop, boxes=path, split=VALIDATION)
    points = np.concatenate(
        [np.load(tmp_path / "out" / f"{part}_landmarks.npy") for part in ("train", "val")]
    )
    assert points.shape == (4, 3, 2)
    assert np.isnan(points[:, 2]).all()
    for (_, row), (first, second, _) in zip(rows_of(result), points, strict=True):
        photo = next(p for p in PHOTOS if row["source"].endswith(p.name))
        left, top, side = (int(row[key]) for key in ("left", "top", "width"))
        ear = next(e for e in photo.ears if abs(e[1] - top) <= max(e[2:4]))
        # COCO counts pixels from 0, whose centres are half a pixel further.
        wanted = np.array([(ear[0] + 10 - left) / side, (ear[1] + 5 - top) / side])
        if row["mirrored"] == "1":
            wanted[0] = 1 - wanted[0]
        np.testing.assert_allclose(first, wanted, atol=1e-5)
        np.testing.assert_allclose(second, [0.5, 0.5], atol=1.1 / side)


def test_keypoints_alone_make_the_box_if_there_are_two(photos: Path, tmp_path: Path) -> None:
    path = coco(tmp_path, PHOTOS)
    data = json.loads(path.read_text())
    first, second, *_ = data["annotations"]
    del first["bbox"], second["bbox"]
    first["keypoints"] = [30, 40, 2, 0, 0, 0, 0, 0, 0]
    second["keypoints"] = [10, 20, 2, 0, 0, 0, 49, 79, 1]
    path.write_text(json.dumps(data))
    result = prepare(photos, tmp_path / "out", crop=Crop(SIZE), boxes=path, split=VALIDATION)
    assert [(entry.path, entry.reason) for entry in result.rejected] == [
        (photos / PHOTOS[0].name, "has fewer than two landmarks")
    ]
    # 59 pixels from the first point to the last, and 0.15 times as much on each side.
    assert (-8, 12, 77, 77) in [box_of(row) for _, row in rows_of(result)]


OBJECT = (
    "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
    "</bndbox></object>"
)
NO_SIZE = "<size><width>0</width><height>0</height></size>"  # as some tools write it
# In photograph a a nose at (0, 0) and an ear at (100, 60), 50 pixels a side.
TWO_CATEGORIES = {
    "boxes.csv": "file,class,x,y,w,h\na.png,nose,0,0,50,50\na.png,ear,100,60,50,50\n",
    "corners.csv": "file,width,height,class,xmin,ymin,xmax,ymax\n"
    "a.png,200,100,nose,0,0,50,50\na.png,200,100,ear,100,60,150,110\n",
    "voc/a.xml": f"<annotation>{NO_SIZE}{OBJECT.format('nose', 1, 1, 50, 50)}"
    f"{OBJECT.format('ear', 101, 61, 150, 110)}</annotation>",
    "yolo/a.txt": "0 0.125 0.25 0.25 0.5\n1 0.625 0.85 0.25 0.5\n",
    "outlines/a.txt": "0 0 0.25 0.125 0 0.25 0.25 0.125 0.5\n1 0.5 0.85 0.625 0.6 0.75 0.85 0.625 1.1\n",
}


def with_two_categories(name: str, folder: Path) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(TWO_CATEGORIES[name])
    (path.parent / "classes.txt").write_text("nose\near\n")
    return path if path.suffix == ".csv" else path.parent


@pytest.mark.parametrize("name", TWO_CATEGORIES)
@pytest.mark.parametrize(
    ("category", "lefts"), [(None, {100}), ("^nose$", {0}), ("ear|nose", {0, 100})]
)
def test_each_format_names_its_categories(tmp_path: Path, name, category, lefts) -> None:
    (ears,) = read_boxes(with_two_categories(name, tmp_path), category).of([Path("a.png")])
    boxes = [ear.in_pixels((200, 100)).box or () for ear in ears or ()]
    assert {box[0] for box in boxes} == lefts
    np.testing.assert_allclose([box[2:] for box in boxes], 50)


def test_a_class_without_a_name_has_its_number(tmp_path: Path) -> None:
    labels = with_two_categories("yolo/a.txt", tmp_path)
    (labels / "classes.txt").write_text("nose\n")
    for name in ("README.dataset.txt", "README.roboflow.txt"):  # which are no labels
        (labels / name).write_text("# ears > 2023-01-01\nhttps://universe.roboflow.com/x")
    (ears,) = read_boxes(labels, "^1$").of([Path("a.png")])
    assert len(ears or ()) == 1


@pytest.mark.parametrize(
    ("name", "ear"),
    [
        ("ear", True), ("Ears", True), ("left_ear", True), ("LeftEar", True), ("rightear", True),
        ("leftear", True), ("ear-right", True), ("left", True), ("Right", True),
        ("earring", False), ("bear", False), ("head", False), ("left hand", False), ("7", False),
    ],
)  # fmt: skip
def test_what_is_called_an_ear(name: str, ear: bool) -> None:
    assert is_ear(name) is ear


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("left_ear", "left"), ("EarRight", "right"), ("L", "left"), ("ear_R", "right"),
        ("l-ear", "left"), ("Ohr L 2", "left"), ("L'oreille droite", None), ("l_oreille", None),
        ("l’orecchio", None),
        ("left or right", None), ("ear", None), ("", None),
    ],
)  # fmt: skip
def test_the_side_that_a_name_says(name: str, side: str | None) -> None:
    assert side_of(name) == side


def test_a_large_jpeg_is_cut_where_the_box_is(tmp_path: Path) -> None:
    """Its decoder makes a smaller picture; the manifest says which pixels were taken all the same."""
    photo = Photo("big.jpg", 801, 603, [])
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(picture(photo)).save(tmp_path / "photos" / name, quality=97, subsampling=0)
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("file,x,y,w,h\na.jpg,151,103,267,353\nb.jpg,350,-9,345,345\n")
    result = prepare(tmp_path / "photos", tmp_path / "out", crop=Crop(SIZE), boxes=boxes)
    for image, row in rows_of(result):
        box = box_of(row)
        ear = (151, 103, 267, 353, "") if "a.jpg" in row["source"] else (350, -9, 345, 345, "")
        assert np.abs(np.subtract(box, expected_box(ear, 0.15))).max() <= 2
        assert np.abs(image - expected_crop(photo, box)).max() <= 4
        assert not np.any(np.array(box) % 4)


SIZE_OF_ANOTHER = "has 200×150 pixels but was annotated at 999"
# The box of the ear in anna/1.png, and why it does not fit.
REJECTED = {
    "40,30,0,60": "its box 40, 30, 0×60 has no area",
    "40,30,-5,60": "has no area",
    "40,nan,5,60": "has no area",
    "40,30,inf,60": "has no area",
    "180,30,60,60": "its box 180, 30, 60×60 lies outside the 200×150 photograph",
    "1e300,30,60,60": "lies outside",
    "width of another": SIZE_OF_ANOTHER,
}


@pytest.mark.parametrize("box", REJECTED)
def test_a_box_that_does_not_fit_is_left_out_and_named(photos, tmp_path, box: str) -> None:
    path = table(tmp_path, PHOTOS)
    path.write_text(path.read_text().replace("40,30,40,60", box))
    if box == "width of another":
        path = coco(tmp_path, PHOTOS)
        path.write_text(path.read_text().replace('"width": 200', '"width": 999'))
    crop = Crop(SIZE, side="left")
    result = prepare(photos, tmp_path / "out", crop=crop, boxes=path, split=VALIDATION)
    assert [entry.path for entry in result.rejected] == [photos / "anna" / "1.png"]
    assert REJECTED[box] in result.rejected[0].reason
    assert (result.train.images, result.val.images) == (1, 2)


def test_an_ear_that_does_not_fit_costs_no_other_one(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(picture(PHOTOS[0])).save(photos / name)
    Image.new("L", (30_000, 30)).save(photos / "strip.png")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(
        "file,x,y,w,h\na.png,900,0,9,9\na.png,40,30,40,60\nb.png,40,30,40,60\n"
        "strip.png,0,0,30000,30\n"
    )
    split = Split(val_groups="b")
    result = prepare(
        photos, tmp_path / "out", crop=Crop(SIZE, side="left"), boxes=boxes, split=split
    )
    assert [entry.reason for entry in result.rejected] == [
        "ear 1: its box 900, 0, 9×9 lies outside the 200×150 photograph",
        "a square of 39000×39000 pixels is too large",
    ]
    assert [box_of(row) for _, row in rows_of(result)] == [
        expected_box((40, 30, 40, 60, ""), 0.15)
    ] * 2
    assert (result.mirrored, result.side_unknown) == (0, 4)


# Each orientation, and what turns the upright picture into what is stored.
STORED = {
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("annotated", ["upright", "stored"])
def test_boxes_of_a_photograph_as_it_is_stored_are_turned(
    tmp_path: Path, orientation: int, annotated: str
) -> None:
    photo = Photo("a.jpg", 180, 240, [])
    upright = picture(photo)
    marked = np.zeros((240, 180, 1), bool)
    marked[60:130, 20:70] = True  # the ear: left 20, top 60, 50 wide, 70 high
    stored = STORED[orientation](upright)
    where = np.argwhere((STORED[orientation](marked) if annotated == "stored" else marked)[..., 0])
    (top, left), (bottom, right) = where.min(axis=0), where.max(axis=0) + 1
    height, width = (stored if annotated == "stored" else upright).shape[:2]
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(stored).save(
            tmp_path / "photos" / name, quality=97, subsampling=0, exif=exif
        )
    ear = (int(left), int(top), int(right - left), int(bottom - top), "left")
    boxes = voc(tmp_path, [Photo(name, width, height, [ear]) for name in ("a.jpg", "b.jpg")])
    result = prepare(tmp_path / "photos", tmp_path / "out", crop=Crop(SIZE), boxes=boxes)
    assert result.rejected == ()
    for image, row in rows_of(result):
        box = box_of(row)
        assert np.abs(np.subtract(box, expected_box((20, 60, 50, 70, ""), 0.15))).max() <= 1
        assert np.abs(image - expected_crop(photo, box)).max() <= 5


def test_keypoints_and_landmarks_of_different_numbers_are_refused(
    photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "points.csv").write_text("file,x0,y0,x1,y1\nbo/1.png,0.1,0.2,0.3,0.4\n")
    boxes = coco(tmp_path, PHOTOS)
    data = json.loads(boxes.read_text())
    data["annotations"][0]["keypoints"] = [50, 40, 2, 60, 80, 2, 70, 60, 2]
    boxes.write_text(json.dumps(data))
    with pytest.raises(EarTeachError, match="ears have 2 and 3 landmarks; use one of"):
        prepare(photos, tmp_path / "out", boxes=boxes, landmarks=tmp_path / "points.csv")
    assert not (tmp_path / "out").exists()
