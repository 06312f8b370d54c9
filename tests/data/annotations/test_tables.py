"""Tables of boxes: which columns are read, and which tables are refused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from earteach.data.annotations.annotation import Annotation
from earteach.data.annotations.boxes import read_boxes
from earteach.errors import EarTeachError


def written(folder: Path, *lines: str) -> Path:
    path = folder / "b.csv"
    path.write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    return path


def ears_of(path: Path, name: str = "a.png") -> tuple[Annotation, ...]:
    (ears,) = read_boxes(path).of([Path(name)])
    return ears or ()


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("filename,width,height,left,top,right,bottom", "a.png,400,300,100,60,180,160"),
        ("file,left,top,w,h,width,height", "a.png,100,60,80,100,400,300"),
        ("file,width,height,x,y,w,h", "a.png,400,300,100,60,80,100"),
        ("file,x_center,y_center,x,y,w,h", "a.png,140,110,100,60,80,100"),
        ("image,filename,x,y,w,h", "1,a.png,100,60,80,100"),
        ("image,name,x,y,w,h", "a,A. Bo,100,60,80,100"),
        ("ImageID,Source,XMin,XMax,YMin,YMax", "a,xclick,100,180,60,160"),
        ("sep=;\nimage;x;y;w;h", "a.png;100;60;80,0;100"),
        (
            "#filename,region_shape_attributes",
            'a.png,"{""name"": ""rect"", ""x"": 100, ""y"": 60, ""width"": 80, ""height"": 100}"',
        ),
    ],
)
def test_the_columns_of_the_box_and_of_the_photograph_are_found(
    tmp_path: Path, header: str, row: str
) -> None:
    (ear,) = ears_of(written(tmp_path, header, row))
    assert ear.box == (100, 60, 80, 100)


@pytest.mark.parametrize(
    ("header", "others"),
    [
        ("image,x,y,width,height,xmax,ymax", "xmax, ymax beside x, y, width, height"),
        ("image,x,y,width,height,x_max,y_max", "x_max, y_max beside x, y, width, height"),
        ("image,left,top,width,height,right", "right beside left, top, width, height"),
        ("image,x,y,width,height,bbox_w", "bbox_w beside x, y, width, height"),
        ("image,x1,y1,x2,y2,x3,y3", "x3, y3 beside x1, y1, x2, y2"),
        ("image,x0,y0,x1,y1,x2,y2", "x0, y0 beside x1, y1, x2, y2"),
        ("image,x,y,w,h,x1,y1,x2,y2", "x, y beside x1, y1, x2, y2"),
    ],
)
def test_columns_of_another_box_or_of_points_are_refused(
    tmp_path: Path, header: str, others: str
) -> None:
    cells = ",".join(["a.png", *map(str, range(1, header.count(",") + 1))])
    path = written(tmp_path, header, cells)
    with pytest.raises(EarTeachError, match=rf"b\.csv: has the columns {others}; keep one box"):
        read_boxes(path)


@pytest.mark.parametrize("row", ["ear,100,60,80,100,a.png,400,300", "a.png,100,60,100,160,ear"])
def test_a_table_without_a_header_is_refused(tmp_path: Path, row: str) -> None:
    with pytest.raises(
        EarTeachError, match="first row holds numbers; put a header above it, as in i"
    ):
        read_boxes(written(tmp_path, row, row))


@pytest.mark.parametrize(
    ("columns", "cells", "person"),
    [
        ("subject,group", "S1,before", "S1"),
        ("group,identity", "before,S1", "S1"),
        ("group", "G1", "G1"),
    ],
)
def test_a_group_is_the_person_unless_another_column_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, columns: str, cells: str, person: str
) -> None:
    caplog.set_level(logging.INFO)
    (ear,) = ears_of(written(tmp_path, f"image,x,y,w,h,{columns}", f"a.png,1,2,30,40,{cells}"))
    assert ear.person == person
    assert ("not in group" in caplog.text) == ("," in columns)


def test_a_row_that_repeats_a_box_counts_once(tmp_path: Path) -> None:
    rows = ["a.png,1,2,30,40", "a.png,1,2,30,50", "b.png,1,2,30,40", "a.png,1,2.0,30,40"]
    path = written(tmp_path, "image,x,y,w,h", *rows)
    assert [ear.box for ear in ears_of(path)] == [(1, 2, 30, 40), (1, 2, 30, 50)]
