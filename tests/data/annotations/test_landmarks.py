"""Landmarks of photographs follow into the crop; those that do not fit are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from earteach.data.annotations.landmark_formats import read_landmarks
from earteach.data.crops import Crop
from earteach.data.prepare import prepare
from earteach.errors import EarTeachError

SIZE = 64
# Each photograph is black with two white squares, whose centres are its landmarks.
SPOTS = {"anna/1.png": ((20, 30), (60, 100)), "bo/1.png": ((40, 80), (70, 20)), "bo/2.png": ()}
WIDTH, HEIGHT = 100, 140


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name, spots in SPOTS.items():
        picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for x, y in spots:
            picture[y - 6 : y + 6, x - 6 : x + 6] = 255
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / name)
    return folder


def write_csv(path: Path, width: int = WIDTH, height: int = HEIGHT) -> Path:
    rows = ["file,x0,y0,x1,y1"]
    for name, spots in SPOTS.items():
        if spots:
            values = [f"{x / width},{y / height}" for x, y in spots]
            rows.append(",".join([name, *values]))
    path.write_text("\n".join(rows))
    return path


def write_csv_in_pixels(path: Path) -> Path:
    return write_csv(path, 1, 1)


def write_pts(folder: Path) -> Path:
    """As iBUG writes them: the centre of the first pixel is (1, 1)."""
    for name, spots in SPOTS.items():
        if spots:
            path = (folder / name).with_suffix(".pts")
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = "\n".join(f"{x + 0.5} {y + 0.5}" for x, y in spots)
            path.write_text(f"version: 1\nn_points: 2\n{{\n{lines}\n}}\n")
    return folder


def spot(image: np.ndarray, near: np.ndarray) -> np.ndarray:
    """The centre of the white spot there, as fractions of the image."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    x, y = (columns + 0.5) / SIZE, (rows + 0.5) / SIZE
    weight = image[..., 0] * (np.hypot(x - near[0], y - near[1]) < 0.15)
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("fit", ["stretch", "reflect"])
@pytest.mark.parametrize("written", [write_csv, write_csv_in_pixels, write_pts])
def test_landmarks_follow_into_the_array(photos, tmp_path, fit, written):
    origin = written(tmp_path / "given")
    result = prepare(
        photos, tmp_path / "out", crop=Crop(SIZE, fit=fit, whole=True), landmarks=origin
    )
    seen = 0
    for part in (result.train, result.val):
        name = part.path.name.replace("teacher", "landmarks")
        images, points = np.load(part.path), np.load(part.path.with_name(name))
        assert points.shape == (len(images), 2, 2)
        assert points.dtype == np.float32
        for image, pair in zip(images, points, strict=True):
            if image.max() == 0:
                assert np.isnan(pair).all()
                continue
            for point in pair:
                assert np.abs(spot(image, point) - point).max() < 0.3 / SIZE
                seen += 1
    assert seen == 4


BAD = {
    "f,x0,y0\n1.png,0.5,0.5": "1.png matches 2 photographs",
    "f,x0,y0,x1\nanna/1.png,0.5,0.5,0.5": "line 2 has 4 columns",
    "f,x0,y0\nanna/1.png,0.5,a": "line 2 holds a value that is not a number",
    "f,x0,y0\nanna/1.png,0.5,nan": "line 2 holds NaN",
    "f,x0,y0\nanna/1.png,0.5,0.5\nanna/1.png,0.5,0.5": "line 3 names anna/1.png again",
    "f,x0,y0": "holds no rows",
    "f,x0,y0,v0,x1,y1,v1\nanna/1.png,1,2,1,8,9,1": "has the columns v0, x1 where x and y",
    "f,x,y,w,h\nanna/1.png,1,2,8,9": "has the columns w, h where x and y",
    "f,left,top,width,height\nanna/1.png,1,2,8,9": "has the columns left, top where",
    "f,width,height,x0,y0,x1,y1\nanna/1.png,9,9,1,2,8,9": "has the columns width, height where",
    "f,x0,x1,y0,y1\nanna/1.png,1,8,2,9": "has the columns x0, x1 where",
    "f,y0,x0,y1,x1\nanna/1.png,1,2,8,9": "has the columns y0, x0 where",
    "f,x0,y0\nanna/1.png,1,2,8,9": "line 2 has 5 columns",
}


@pytest.mark.parametrize("text", BAD)
def test_a_csv_that_does_not_fit_is_refused(photos, tmp_path, text):
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(EarTeachError, match=BAD[text]) as caught:
        prepare(photos, tmp_path / "out", crop=Crop(SIZE), landmarks=path)
    assert str(caught.value).startswith(f"--landmarks {path}: ")
    assert not (tmp_path / "out").exists()


# The files in a folder, and why it is refused.
BAD_FOLDERS = [
    ({"a.pts": "no braces"}, "is not a .pts file"),
    ({"a.pts": "{\n}"}, "is not a .pts"),
    ({"a.txt": "{\n1 2\n}"}, r"holds no \.pts files; name a \.csv or their folder"),
    (
        {"a.pts": "{\n1 2\n}", "b.pts": "{\n1 2\n3 4\n}"},
        r"b.pts: holds 2 points, but .*a.pts holds 1",
    ),
]


@pytest.mark.parametrize(("files", "words"), BAD_FOLDERS)
def test_a_folder_without_fitting_pts_is_refused(tmp_path, files, words):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(EarTeachError, match=words):
        read_landmarks(tmp_path)
    with pytest.raises(EarTeachError, match="none: no such file"):
        read_landmarks(tmp_path / "none")


@pytest.mark.parametrize("columns", ["x0,y0,x1,y1", "X,Y,X,Y", "lobe_x, lobe_y,helixX,helixY"])
def test_columns_are_pairs_of_x_and_y(tmp_path, columns):
    path = tmp_path / "points.csv"
    path.write_text(f"f,{columns}\na.jpg,1,2,8,9\n")
    ((ear,),) = read_landmarks(path).of([Path("a.jpg")])
    assert ear.points.tolist() == [[1, 2], [8, 9]]


def test_landmarks_without_a_header_are_refused(tmp_path):
    """Or the first photograph would be lost without a word."""
    path = tmp_path / "points.csv"
    path.write_text("a.jpg,16,16,48,48\nb.jpg,16,16,48,48\n")
    with pytest.raises(EarTeachError, match="its first row holds numbers; put a header above it"):
        read_landmarks(path)
