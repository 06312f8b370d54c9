"""Bad input of `prepare --boxes`: what it is, its name, its content, and words of the error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.bad_input.files import Made, hostile, of_size, pipe

IMAGES = [{"id": 1, "file_name": "a.png", "width": 32, "height": 32}]
EAR = {"image_id": 1, "bbox": [1, 2, 30, 29], "category_id": 1}


def coco(**changes: Any) -> bytes:
    whole = {"images": IMAGES, "annotations": [EAR], "categories": [{"id": 1, "name": "ear"}]}
    return json.dumps({**whole, **changes}).encode()


def voc(inside: str, start: str = "<annotation>") -> bytes:
    return f"{start}<object><name>ear</name>{inside}</object></annotation>".encode()


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "ha"}">' for n in range(12))
ENTITIES = voc("&l11;", f"<!DOCTYPE annotation [{LAUGHS}]><annotation>")
OUTSIDE = voc("&x;", '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>')
GOOD = coco()
HEAD = b"image,x,y,w,h\n"
CENTRE = b"0 1 1 1 1"
SYSTEM = b"names: !!python/object/apply:os.system ['touch planted']"
# Each list holds the one before twice: as text, the last one would have 2^60 parts.
LAUGHING = "\n".join(
    [
        "a0: &a0 [ear]",
        *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 61)),
        "names: [*a60]",
    ]
).encode()

# (what, the name of the file or folder, what is in it, words of the error)
BOXES: list[tuple[str, str, Made | Mapping[str, Made], str]] = [
    *((f"COCO of {n} bytes", "b.json", GOOD[:n], "is not a JSON file") for n in (0, 1, 50, 100)),
    ("COCO without annotations", "b.json", b'{"images": []}', "is JSON of another kind, which"),
    ("COCO with none", "b.json", coco(annotations=[]), "holds no boxes"),
    ("COCO, a hundred thousand deep", "b.json", b"[" * 100_000, "is not a JSON file"),
    ("COCO, a strange image", "b.json", coco(annotations=[{**EAR, "image_id": 9}]), "annotation 0"),
    *(
        (f"COCO, bbox {bbox}", "b.json", coco(annotations=[{**EAR, "bbox": bbox}]), "annotation 0")
        for bbox in ([], [1, 2, 3], [1, 2, 3, 4, 5], "abcd", None, 7, [None] * 4, {"x": 1})
    ),
    ("COCO, nothing named ear", "b.json", coco(
        categories=[{"id": 1, "name": "hand"}, {"id": 2, "name": "gear"}],
        annotations=[EAR, {**EAR, "category_id": 2}]), "hand, gear, and none is named ear|--category"),
    ("COCO, 5 and 3 landmarks", "b.json", coco(annotations=[
        {**EAR, "keypoints": [1] * 15}, {**EAR, "bbox": [2, 2, 9, 9], "keypoints": [1] * 9}]),
     "its ears have 3 and 5 landmarks; choose one kind with --category"),
    ("COCO of other photographs", "b.json", coco(images=[{"id": 1, "file_name": "z.png"}]),
     "has no entry for a.png"),
    ("a CSV without rows", "b.csv", HEAD, "holds no rows"),
    ("a CSV without a header", "b.csv", b"a.png,1,2,3,4\n" * 2, "its first row holds numbers"),
    ("a CSV of two boxes", "b.csv", b"image,x,y,width,height,xmax,ymax\na.png,1,2,32,32,9,9\n",
     "has the columns xmax, ymax beside x, y, width, height"),
    ("a CSV, a row too short", "b.csv", HEAD + b"a.png,1,2,3\n",
     "line 2 has 4 columns but the header has 5"),
    ("a CSV, a word", "b.csv", HEAD + b"a.png,1,2,three,4\n", "line 2 `w` holds something"),
    *((f"VOC of {n} bytes", "v", {"v/a.xml": voc("")[:n]}, "v/a.xml: is not valid") for n in (0, 5, 30)),
    ("VOC without a box", "v", {"v/a.xml": voc("")}, "object 0 has no `bndbox`"),
    ("VOC that laughs", "v", {"v/a.xml": ENTITIES}, "it declares entities"),
    ("VOC that laughs in UTF-16", "v", {"v/a.xml": ENTITIES.decode().encode("utf-16")},
     "it declares entities"),
    ("VOC that reads files", "v", {"v/a.xml": OUTSIDE}, "it declares entities"),
    ("VOC, ten thousand deep", "v", {"v/a.xml": b"<a>" * 10_000}, "v/a.xml: is not valid"),
    *(
        (f"YOLO, {line[:20]!r}", "y", {"y/a.txt": line}, f"y/a.txt: {words}")
        for line, words in (
            (b"0", "line 1 has 1 numbers"), (b"0 1 2 3", "line 1 has 4 numbers"),
            (b"ear 1 1 1 1", "line 1 is not a YOLO label: it holds something that is not a number"),
            (b"0 1 1 1 x", "line 1 is not a YOLO label"), (b"\xff\xfe0", "is not text in UTF-8"),
            (b"0 1 1 1 1 1 1 1", "line 1 may be an outline or the points of a pose"),
            (b"inf 1 1 1 1", "line 1 has the class inf"),
        )
    ),
    ("YOLO of 2 TB", "y", {"y/a.txt": of_size(2**41, b"0")}, "too large"),
    ("YOLO, a yaml that runs", "y",
     {"y/a.txt": CENTRE, "y/data.yaml": SYSTEM},
     "data.yaml: does not describe labels"),
    ("YOLO, a yaml that laughs", "y", {"y/a.txt": CENTRE, "y/data.yaml": LAUGHING},
     "data.yaml: does not describe labels"),
    ("an empty folder", "y", {"y/b": b""}, "a folder without labels; name a .json (COCO"),
    ("nothing", "none.json", {}, "no such file"),
    ("a pipe", "b.json", pipe, "is not a file of boxes"),
    ("a pickle", "b.pkl", hostile("planted")["plain pickle"](), "is not a file of boxes"),
]  # fmt: skip
