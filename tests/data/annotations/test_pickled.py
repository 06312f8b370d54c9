"""Old pickles are read as NumPy reads them, and nothing in them is run."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earteach.data.annotations.pickled import read_pickled
from earteach.errors import EarTeachError

NAMES = ["a/1.jpg", "b/ö 2.jpg"]
BOXES = [[1, 2, 30, 40], [5.5, 6, 70, 80]]
VALUES: dict[str, dict[str, Any]] = {
    "lists": {"image_paths": NAMES, "bboxes": BOXES},
    "tuples": {"image_paths": tuple(NAMES), "bboxes": tuple(map(tuple, BOXES))},
    "arrays": {"image_paths": np.array(NAMES), "bboxes": np.array(BOXES)},
    "an array for each": {"image_paths": NAMES, "bboxes": [np.array(box) for box in BOXES]},
    "objects": {"image_paths": np.array(NAMES, object), "bboxes": np.array(BOXES, object)},
    "float32": {"image_paths": NAMES, "bboxes": np.array(BOXES, np.float32)},
    "big-endian": {"image_paths": NAMES, "bboxes": np.array(BOXES, ">f8")},
    "Fortran order": {"image_paths": NAMES, "bboxes": np.asfortranarray(np.array(BOXES))},
    "scalars": {"image_paths": NAMES, "bboxes": [[np.float32(v) for v in box] for box in BOXES]},
    "scalars of text": {"image_paths": [np.str_(n) for n in NAMES], "bboxes": BOXES},
    "bytes": {"image_paths": [name.encode() for name in NAMES], "bboxes": BOXES},
    "several in each": {"image_paths": NAMES, "bboxes": [[box] for box in BOXES]},
    "and other keys": {"image_paths": NAMES, "bboxes": BOXES, "sizes": {"a": (1, None, True)}},
}


def written(folder: Path, value: object, protocol: int = 4) -> Path:
    path = folder / "ears.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", VALUES)
def test_what_numpy_wrote_is_read(tmp_path: Path, kind: str, protocol: int) -> None:
    found = read_pickled(written(tmp_path, VALUES[kind], protocol))
    assert list(found) == NAMES
    assert [[ear.box for ear in ears] for ears in found.values()] == [[tuple(box)] for box in BOXES]


def test_names_that_come_again_are_one_photograph(tmp_path: Path) -> None:
    value = {"image_paths": ["a", "b", "a"], "bboxes": [BOXES[0], None, BOXES[1]]}
    found = read_pickled(written(tmp_path, value))
    assert {name: len(ears) for name, ears in found.items()} == {"a": 2, "b": 0}


def test_as_python_2_and_old_numpy_wrote_them(tmp_path: Path) -> None:
    """Their names of modules, and bytes where text is now: put together by hand."""
    numbers = np.array(BOXES, "<f8").tobytes().decode("latin1").encode("unicode_escape")
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I2\nI4\ntcnumpy\ndtype\n(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'"
        + numbers.replace(b"'", b"\\'")
        + b"'\ntb"
    )
    path = tmp_path / "old.pickle"
    path.write_bytes(b"(dS'image_paths'\n(lS'a/1.jpg'\naS'b.jpg'\nasS'bboxes'\n" + array + b"s.")
    with path.open("rb") as file:  # it is what it is meant to be
        assert pickle.load(file, encoding="latin1")["bboxes"].tolist() == BOXES
    found = read_pickled(path)
    assert [ears[0].box for ears in found.values()] == [tuple(box) for box in BOXES]


def test_numbers_as_python_2_wrote_them(tmp_path: Path) -> None:
    number = (
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\n"
        b"I0\ntbS'"
        + np.float64(3.14159).tobytes().decode("latin1").encode("unicode_escape")
        + b"'\ntR"
    )
    path = tmp_path / "old.pickle"
    path.write_bytes(
        b"(dS'image_paths'\n(lS'a'\nasS'bboxes'\n(l(l" + b"a".join([number] * 4) + b"aas."
    )
    with path.open("rb") as file:
        assert pickle.load(file, encoding="latin1")["bboxes"] == [[3.14159] * 4]
    assert [ears[0].box for ears in read_pickled(path).values()] == [(3.14159,) * 4]


class Runs:
    """What is called when it is unpickled."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def trick(name: str, planted: Path) -> bytes:
    """Known ways to have a pickle run something."""
    code = f"open({str(planted)!r}, 'w').close()"
    gadgets: dict[str, Any] = {
        "os.system": Runs(os.system, f"touch {planted}"),
        "eval": Runs(eval, code),
        "exec": Runs(exec, code),
        "subprocess": Runs(subprocess.call, ["touch", str(planted)]),
        "import": Runs(__import__, "antigravity"),
        "getattr": Runs(getattr, "os", "upper"),
        "open": Runs(open, str(planted), "w"),
        "numpy.load": Runs(np.load, str(planted)),
        "numpy.fromfile": Runs(np.fromfile, "/etc/passwd", "u1"),
        "numpy.memmap": Runs(np.memmap, str(planted), "u1", "w+", 0, (1,)),
        "codecs": Runs(__import__("codecs").decode, b"00", "hex"),
        "a path": Path("a"),
    }
    if name in gadgets:
        return pickle.dumps({"image_paths": [gadgets[name]], "bboxes": [[1, 2, 3, 4]]})
    by_hand = {
        "a class of numpy's": b"cnumpy\nload\n(S'x'\ntR.",
        "through a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",
        "an extension": b"\x80\x02\x82\x01.",
        "a persistent object": b"\x80\x02X\x01\x00\x00\x00aQ.",
        "an inst": b"(S'touch x'\nios\nsystem\n.",
        "a change to a function": b"cnumpy.core.multiarray\nscalar\n(N(dS'__doc__'\nI1\nstb.",
        "a name over two lines": b"\x80\x04\x8c\x03o\ns\x8c\x06system\x93.",
        "an encoding": b"c_codecs\nencode\n(Vx\nS'rot13'\ntR.",
    }
    return by_hand[name]


TRICKS = [
    "os.system", "eval", "exec", "subprocess", "import", "getattr", "open", "numpy.load",
    "numpy.fromfile", "numpy.memmap", "codecs", "a path", "a class of numpy's",
    "through a dotted name", "an extension", "a persistent object", "an inst",
    "a name over two lines", "a change to a function", "an encoding",
]  # fmt: skip


@pytest.mark.parametrize("name", TRICKS)
def test_nothing_in_it_is_run(tmp_path: Path, name: str) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(trick(name, tmp_path / "planted"))
    with pytest.raises(EarTeachError, match=r"could run anything|not a pickle") as caught:
        read_pickled(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "planted").exists()


HUGE = b"(dS'image_paths'\n(lS'a'\nasS'bboxes'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
DAMAGED: dict[str, bytes] = {
    "nothing": b"",
    "text": b"these are no ears",
    "cut short": pickle.dumps(VALUES["arrays"])[:-20],
    "an array alone": pickle.dumps(np.array(BOXES)),
    "another dictionary": pickle.dumps({"paths": NAMES, "boxes": BOXES}),
    "fewer boxes than paths": pickle.dumps({"image_paths": NAMES, "bboxes": BOXES[:1]}),
    "three numbers": pickle.dumps({"image_paths": ["a"], "bboxes": [[1, 2, 3]]}),
    "boxes of text": pickle.dumps({"image_paths": ["a"], "bboxes": [["a", "b", "c", "d"]]}),
    "paths that are numbers": pickle.dumps({"image_paths": [1], "bboxes": [[1, 2, 3, 4]]}),
    "a path instead of a list": pickle.dumps({"image_paths": "a", "bboxes": [[1, 2, 3, 4]]}),
    "an array of a terabyte": HUGE + b"(I1000000000000\ntS'b'\ntRs.",
    "bytes of a terabyte": b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x.",
    "a memo of ten gigabytes": b"\x80\x04Nr\xff\xff\xff\x27.",
    "a memo of ten gigabytes, as text": b"Np680825748\n.",
    "a byte array of 8 GB": b"\x80\x05\x96" + (2**33).to_bytes(8, "little") + b"x.",
    "structures": pickle.dumps({"image_paths": ["a"], "bboxes": np.zeros(1, "i4,i4")}),
    "in itself": b"(lp0\ng0\na.",
    "very deep": b"(" * 100_000 + b"t" * 100_000 + b".",
}


@pytest.mark.parametrize("what", DAMAGED)
def test_what_is_no_such_dictionary_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "bad.pkl"
    path.write_bytes(DAMAGED[what])
    with pytest.raises(EarTeachError, match=r"as a \.csv") as caught:
        read_pickled(path)
    assert "\n" not in str(caught.value)


def test_random_damage_is_refused_or_read(tmp_path: Path) -> None:
    """Thousands of damaged pickles, in a process of their own: none may crash it."""
    code = """
import pickle, random, sys
from pathlib import Path
import numpy as np
from earteach.data.annotations.pickled import read_pickled
from earteach.errors import EarTeachError
chance, path = random.Random(0), Path(sys.argv[1])
values = {"image_paths": np.array(["a", "b"]), "bboxes": np.array([[1., 2, 3, 4]] * 2)}
for number in range(4000):
    data = bytearray(pickle.dumps(values, number % 6))
    for _ in range(chance.randrange(1, 4)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    path.write_bytes(bytes(data))
    try:
        read_pickled(path)
    except EarTeachError:
        pass
"""
    made = tmp_path / "damaged.pkl"
    ran = subprocess.run([sys.executable, "-c", code, made], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
