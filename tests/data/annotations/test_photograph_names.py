"""Which photograph a name in an annotation file stands for."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from earteach.data.annotations.annotation import Annotation
from earteach.data.annotations.photograph_names import Annotations
from earteach.errors import EarTeachError

# The name in the file, the photographs, and which of these it is of.
FITS = [
    ("1.png", ["1.png", "2.png"], "1.png"),
    ("1", ["1.png", "2.png"], "1.png"),
    ("1.png", ["anna/1.png", "anna/2.png"], "anna/1.png"),
    ("anna/1.png", ["anna/1.png", "bo/1.png"], "anna/1.png"),
    ("anna/1", ["train/anna/1.png", "train/bo/1.png"], "train/anna/1.png"),
    ("/home/x/photos/bo/1.png", ["anna/1.png", "bo/1.png"], "bo/1.png"),
    ("C:\\photos\\bo\\1.png", ["anna/1.png", "bo/1.png"], "bo/1.png"),
    ("./bo/1.png", ["anna/1.png", "bo/1.png"], "bo/1.png"),
    ("/home/x/1", ["1.png", "2.png"], "1.png"),
    ("a.b", ["a.b.png", "a.png"], "a.b.png"),
    ("ö/ü 1.png", ["ö/ü 1.png"], "ö/ü 1.png"),
    (
        unicodedata.normalize("NFC", "ö/é.png"),
        [unicodedata.normalize("NFD", "ö/é.png")],
        unicodedata.normalize("NFD", "ö/é.png"),
    ),
    (
        unicodedata.normalize("NFD", "é.png"),
        [unicodedata.normalize("NFC", "x/é.png")],
        unicodedata.normalize("NFC", "x/é.png"),
    ),
    ("IMG_1.JPG", ["img_1.jpg", "img_2.jpg"], "img_1.jpg"),
    ("1.jpg", ["1.png", "2.png"], "1.png"),
    ("p0.jpg", ["p0.jpg", "p0.png"], "p0.jpg"),
    ("https://host:80/media/bo/1%20a.png?x=2", ["anna/1 a.png", "bo/1 a.png"], "bo/1 a.png"),
    ("s3://bucket/photos/1.png", ["1.png"], "1.png"),
    ("0a1b2c3d-left.png", ["left.png", "right.png"], "left.png"),  # an upload
    ("12345678-left.jpg", ["x/left.png", "right.png"], "x/left.png"),
]


@pytest.mark.parametrize(("name", "photographs", "wanted"), FITS)
def test_a_name_fits_where_one_ends_as_the_other(
    name: str, photographs: list[str], wanted: str
) -> None:
    ear = Annotation(box=(0, 0, 1, 1))
    found = Annotations("--boxes x", {name: [ear]}).of([Path(p) for p in photographs])
    assert [p for p, ears in zip(photographs, found, strict=True) if ears] == [wanted]
    assert [ears for ears in found if ears] == [(ear,)]


MISFITS = [
    # The folder's end is not the other's beginning.
    (["bo/1.png"], ["anna/1.png"], "has no entry for anna/1.png or any other photograph"),
    (["1.png"], ["11.png"], "has no entry for 11.png"),
    (["1.mov"], ["1.png"], "has no entry for 1.png"),
    (
        ["1.png"],
        ["anna/1.png", "bo/1.png"],
        ".* matches 2 photographs .*; add their folders",
    ),
    (
        ["1"],
        ["1.png", "1.jpg"],
        "1 matches 2 photographs .*; add their suffixes",
    ),
    # Dates are not what an upload puts before a name, and no photograph is renamed by one.
    (["20210504-left.png"], ["left.png"], "has no entry for left.png"),
    (["04052021-left.png"], ["left.png"], "has no entry for left.png"),
    (["12345678-left.png"], ["12345679-left.png"], "has no entry for 12345679-left.png"),
    (["x/a/1.png", "y/a/1.png"], ["a/1.png"], "both x/a/1.png and y/a/1.png match a/1.png"),
]


@pytest.mark.parametrize(("names", "photographs", "says"), MISFITS)
def test_what_is_not_one_to_one_is_refused(
    names: list[str], photographs: list[str], says: str
) -> None:
    ears = {name: [Annotation()] for name in names}
    with pytest.raises(EarTeachError, match=f"^--boxes x: {says}"):
        Annotations("--boxes x", ears).of([Path(p) for p in photographs])
