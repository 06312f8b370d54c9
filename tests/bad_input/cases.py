"""The corpus: each row is a command line, the bad files that it meets, and what it must say.

A row is added by writing it: a name, what is typed, the exit code, the words that stderr must hold
(divided by `|`), and the files that are made first, by name: their bytes, or a function that is given
the path. In the folder lie already `good.ckpt`, `good.npy` with ears, and a folder `best` with a best
checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from earteach.checkpoint import FORMAT
from tests.bad_input.boxes import BOXES
from tests.bad_input.files import (
    Made,
    altered,
    archive,
    described,
    folder,
    header,
    hostile,
    hostile_beside,
    jpeg,
    link_to,
    link_to_itself,
    npy,
    of_size,
    pipe,
    png,
    shortened,
    torch_saved,
    trap,
    with_about,
    with_config,
    with_weights,
    without,
)

EARS = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
ARRAY = npy(EARS)
UNIT = (EARS / 255).astype(np.float32)
LONG = "n" * 300
PLANTED = "planted"  # what hostile files make when they are run


@dataclass(frozen=True)
class Case:
    name: str
    typed: str
    code: int
    words: str
    files: dict[str, Made]

    def __str__(self) -> str:
        return self.name


def with_value(value: float, dtype: str = "f4", row: int = 2) -> bytes:
    values = UNIT.astype(dtype)
    values[row, 3, 3, 1] = value
    return npy(values)


# Of arrays: what is wrong, the file, and words of the error.
ARRAYS: list[tuple[str, Made, str]] = [
    ("of no bytes", b"", "is empty"),
    *((f"of {n} bytes", ARRAY[:n], "not a .npy file") for n in (1, 5)),
    *((f"of {n} bytes", ARRAY[:n], "is cut short") for n in (6, 7, 8, 9, 10, 60, 127, 128, 4000)),
    ("one byte short", ARRAY[:-1], "is cut short"),
    ("of text", b"not what you think", "not a .npy file"),
    ("an archive", b"PK\x03\x04" + bytes(100), "is an archive; unpack it"),
    ("a tensor of torch", archive(b"\x80\x02}."), "is a file of torch; convert it|weights_only=True"),
    ("a picture", png(8, 8), "is a photograph; make arrays"),
    ("version 2 of the header, as long as 4 GB", b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "cut"),
    ("a pickle that calls", hostile(PLANTED)["plain pickle"](), "is a pickle, which could run any code"),
    ("a header that calls", described("(4, 8, 8, 3)", "__import__('os').abort()"), "its header"),
    ("a header a thousand deep", header("(" * 9000 + ")" * 9000), "its header cannot be read"),
    ("a negative shape", described("(-1, 8, 8, 3)"), "header|save"),
    ("a shape of a terabyte", described("(5592405, 256, 256, 3)"), "is cut short"),
    ("an unknown type", described("(4, 8, 8, 3)", "'xx'"), "its header cannot be read"),
    ("objects", npy(np.array([None, 1]), allow_pickle=True), "holds Python objects"),
    ("objects that call", trap(PLANTED), "holds Python objects"),
    ("int64", npy(np.zeros((4, 32, 32, 3), "i8")), "holds int64|astype"),
    ("no images", npy(EARS[:0]), "no images"),
    ("one image", npy(EARS[0]), "looks like one image"),
    ("RGBA", npy(np.zeros((4, 32, 32, 4), "u1")), "four channels"),
    ("either layout", npy(EARS[:, :3]), "--layout"),
]  # fmt: skip
# Arrays that open; their values are found to be bad when they are read.
VALUES: list[tuple[str, bytes, str]] = [
    ("NaN", with_value(np.nan), "image 2 holds NaN|inspect-data"),
    ("negative", with_value(-0.5), "image 2 holds values from -0.5"),
    ("a little over 1", npy(UNIT * 1.5), "a little over 1|clip"),
    ("NaN, in Fortran order", npy(np.asfortranarray(np.full_like(UNIT, np.nan))), "image 0 holds NaN"),
]  # fmt: skip
READ_ARRAYS = {
    "inspect-data": "inspect-data bad.npy",
    "inspect-data, second": "inspect-data good.npy bad.npy",
    "train": "train --train-data good.npy --val-data bad.npy --checkpoint-dir new --log-dir new",
    "train --dry-run": "train --train-data bad.npy --val-data good.npy --dry-run",
    "eval": "eval good.ckpt --data bad.npy",
    "reconstruct": "reconstruct good.ckpt --input bad.npy --out new",
    "embed": "embed good.ckpt --input bad.npy --out new.npz",
}
READ_VALUES = ("train", "eval", "reconstruct", "embed")

# Places where a file is meant, and what lies there.
PLACES: list[tuple[str, Made, str]] = [
    ("a folder", folder, "name a"),
    ("a link to itself", link_to_itself, ""),
    ("a pipe", pipe, "not a regular file|name a"),
    ("a device", link_to("/dev/zero"), "not a regular file|name a"),
]

# Photographs.
PHOTOGRAPHS: list[tuple[str, bytes, str]] = [
    ("of no bytes", b"", "empty"),
    ("of text", b"not what you think", "not an image"),
    ("cut in its header", png(8, 8)[:20], "not an image"),
    ("without pixels", png(8, 8), "not an image"),
    ("padding without end", b"\xff\xd8\xff" + b"\xff" * 10**4, "not an image"),
    ("PNG, 60000 × 60000", png(60000, 60000), "it has too many pixels"),
    ("PNG of zeros, 12000 × 12000", png(12000, 12000, bytes(12000 * 36)), "pixels are too many"),
    ("JPEG, 60000 × 60000", jpeg(60000, 60000), "it has too many pixels"),
    ("PNM, 30000 × 30000", b"P6 30000 30000 255\n" + bytes(3000), "not an image"),
]  # fmt: skip

TOML: list[tuple[str, Made, str]] = [
    ("of no sense", b"epochs = ", "not TOML"),
    ("a thousand deep", b"epochs = " + b"[" * 5000 + b"]" * 5000, "not TOML"),
    ("a section", b"[optim]\nepochs = 3", "has a section [optim]"),
    ("an unknown key", b"momentum = 3", "unknown key 'momentum'"),
    ("a truth", b"epochs = true", "--epochs True: must be a whole number"),
    ("NaN", b"learning_rate = nan", "--learning-rate nan: must be greater than 0"),
    ("a number for a path", b"train_data = 3", "--train-data 3: must be a path"),
    ("a choice that is none", b"precision = '64'", "--precision 64: must be one of"),
    ("a huge number", b"epochs = 999999999999999999999", "--epochs"),
]  # fmt: skip

# Of checkpoints: the file, and words of the error.
CHECKPOINTS: list[tuple[str, Made, str]] = [
    *((f"cut at {share:g} of its length", shortened(share), "is cut short or not a checkpoint")
      for share in (1e-6, 1e-4, 0.01, 0.5, 0.99, 0.999999)),
    ("a picture", png(8, 8), "is cut short or not a checkpoint"),
    ("of the old format", torch_saved({}, _use_new_zipfile_serialization=False), "not a checkpoint"),
    ("a number", torch_saved(3.0), "is not an earteach checkpoint"),
    ("of text", b"not what you think", "is cut short or not a checkpoint"),
    ("of another tool", torch_saved({"state_dict": {}}), "is not an earteach checkpoint"),
    ("a pickle that ends early", archive(b"\x80\x02}"), "is cut short or not a checkpoint"),
    ("a pickle of lists in lists", archive(b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"."),
     "checkpoint"),
    ("compressed, 1000 to 1", archive(b"\x80\x02}.", {"0": bytes(10**7)}, compression=8), "checkpoint"),
    ("a storage of 8 TB", archive(
        b"\x80\x02(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\n\x8a\x06\0\0\0\0\0\x02tQ.",
        {"0": bytes(8)}), "checkpoint"),
    ("a storage named with ..", archive(
        b"\x80\x02(S'storage'\nctorch\nFloatStorage\nS'../../x'\nS'cpu'\nK\x02tQ."), "checkpoint"),
    ("a tensor beyond its storage", archive(
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\nFloatStorage\nS'0'\n"
        b"S'cpu'\nK\x02tQK\x00(M\xff\xff\x85(K\x01\x85\x89ccollections\nOrderedDict\n)RtR.",
        {"0": bytes(8)}), "checkpoint"),
]  # fmt: skip
NO_FIT = "its weights do not fit its configuration"
NO_CONFIG = "its configuration cannot be read"
# Of a good checkpoint: what is changed, and words of the error.
ALTERED: list[tuple[str, Made, str]] = [
    ("without its entry", altered(without("earteach")), "is not an earteach checkpoint"),
    ("without weights", altered(without("state_dict")), "is not an earteach checkpoint"),
    ("a number for a weight's name", altered(lambda s: {**s, "state_dict": {3: 4}}), "is not a"),
    ("of the future", altered(with_about(format=FORMAT + 1, version="9.8.7")),
     "was written by earteach 9.8.7, newer than this"),
    ("of the past", altered(with_about(format=1, version="0.0.9")),
     "was written by earteach 0.0.9, whose networks were different; train again with `earteach train"),
    ("a number for its configuration", altered(with_about(config=3)), NO_CONFIG),
    ("an option out of range", altered(with_config(latent_dim=0)), NO_CONFIG),
    ("another size of code", altered(with_config(latent_dim=32)), NO_FIT),
    ("huge images", altered(with_config(image_size=2**12)), NO_FIT),
    ("another kind of network", altered(with_config(pca_init=False)), NO_FIT),
    ("a weight left out", altered(with_weights(
        lambda name, value: {} if "to_image.1.conv.bias" in name else {name: value})), NO_FIT),
    ("integers for weights", altered(with_weights(lambda name, v: {name: v.long()})), NO_FIT),
]  # fmt: skip
UNFIT = "its training state cannot be restored"
# What only a resumed run reads.
STATES: list[tuple[str, Made, str]] = [
    ("without an optimizer", altered(without("optimizer_states")), UNFIT),
    ("a number for an optimizer", altered(lambda s: {**s, "optimizer_states": [3]}), UNFIT),
    ("another optimizer", altered(lambda s: {**s, "optimizer_states": [
        {"state": {}, "param_groups": [{"params": [0]}]}]}), UNFIT),
    ("a word for its step", altered(lambda s: {**s, "global_step": "x"}), "is not an earteach"),
    ("without its data", altered(with_about(data={})), "is no longer the train array of"),
]  # fmt: skip
READ_CHECKPOINTS = {
    "inspect-model": "inspect-model bad.ckpt",
    "eval": "eval bad.ckpt --data good.npy",
    "against": "eval good.ckpt --data good.npy --against bad.ckpt",
    "sample": "sample bad.ckpt --out new",
    "reconstruct": "reconstruct bad.ckpt --input good.npy --out new",
    "export": "export bad.ckpt --out new",
    "embed": "embed bad.ckpt --input good.npy --out new.npz",
    "report": "report bad.ckpt",
    "resume": "resume bad.ckpt",
    "init-from": "train --train-data good.npy --val-data good.npy --init-from bad.ckpt "
    "--checkpoint-dir new --log-dir new",
}


def _in_turns(
    readers: dict[str, str], rows: list[tuple[str, Made, str]], name: str, what: str
) -> Iterator[Case]:
    """Each row with one of the commands, each command in its turn."""
    commands = list(readers.items())
    for place, (kind, made, words) in enumerate(rows):
        reader, typed = commands[place % len(commands)]
        yield Case(f"{reader}: {what} {kind}", typed, 1, f"{name}|{words}", {name: made})


def _cases() -> Iterator[Case]:
    first = {"inspect-data": READ_ARRAYS["inspect-data"]}
    yield from _in_turns(first, ARRAYS, "bad.npy", "an array,")
    others = {reader: typed for reader, typed in READ_ARRAYS.items() if reader not in first}
    yield from _in_turns(others, ARRAYS, "bad.npy", "an array,")
    for reader in READ_VALUES:
        yield from _in_turns({reader: READ_ARRAYS[reader]}, VALUES, "bad.npy", "values,")
    yield from _in_turns(READ_CHECKPOINTS, CHECKPOINTS, "bad.ckpt", "a checkpoint,")
    tricks: list[tuple[str, Made, str]] = [
        (name, make(), "bad.ckpt") for name, make in hostile(PLANTED).items()
    ]
    tricks.append(("beside all that is good", altered(hostile_beside(PLANTED)), "bad.ckpt"))
    yield from _in_turns(READ_CHECKPOINTS, tricks, "bad.ckpt", "a hostile checkpoint,")
    # Whether weights fit is asked by those that build the network.
    building = {name: typed for name, typed in READ_CHECKPOINTS.items() if name != "resume"}
    yield from _in_turns(building, ALTERED, "bad.ckpt", "a checkpoint,")
    resume = {"resume": "resume bad.ckpt --epochs 9"}
    yield from _in_turns(resume, STATES, "bad.ckpt", "a checkpoint,")
    for commands, name in ((READ_ARRAYS, "bad.npy"), (READ_CHECKPOINTS, "bad.ckpt")):
        for reader, typed in commands.items():
            for kind, made, words in PLACES:
                meant = f"{kind} for {name}"
                yield Case(f"{reader}: {meant}", typed, 1, f"{name}|{words}", {name: made})
    for kind, content, words in PHOTOGRAPHS:
        typed = "prepare photos --out new"
        photos: dict[str, Made] = {"photos/a.png": content, "photos/b.jpg": content}
        yield Case(f"prepare: {kind}", typed, 1, f"photos/|{words}", photos)
        typed = "reconstruct good.ckpt --input a.png --out new"
        yield Case(f"reconstruct: {kind}", typed, 1, f"a.png|{words}", {"a.png": content})
    for kind, name, made, words in BOXES:
        files: dict[str, Made] = {"photos/a.png": png(32, 32, bytes(33 * 96))}
        files.update(made if isinstance(made, Mapping) else {name: made})
        typed = f"prepare photos --boxes {name} --out new"
        yield Case(f"prepare: {kind}", typed, 1, f"--boxes {name}|{words}", files)
    yield from _in_turns({"train": "train --config bad.toml"}, TOML, "bad.toml", "a TOML,")
    yield from MORE


TRAIN = "train --train-data good.npy --val-data good.npy"
DRAW = "prepare --synthetic 4 --image-size 32"
# Where a name is one that no file can have.
NAMING = [
    f"inspect-data {LONG}", f"inspect-model {LONG}", f"reconstruct good.ckpt --input {LONG} --out new",
    f"eval good.ckpt --data good.npy --no-baselines --out {LONG}", f"prepare {LONG}",
    f"{DRAW} --out {LONG}", f"sample good.ckpt --out {LONG}", f"export good.ckpt --out {LONG}",
    f"embed good.ckpt --input good.npy --out {LONG}.npz", f"report good.ckpt --out {LONG}",
    f"report good.ckpt --gif {LONG}.gif", f"resume {LONG}", f"train --config {LONG}",
    f"{TRAIN} --checkpoint-dir {LONG} --log-dir new",
    f"{TRAIN} --checkpoint-dir new --log-dir {LONG}",
]  # fmt: skip
HUGE = 10**23
# Numbers that no machine has the memory, or torch the integers, for.
NUMBERS = [
    ("inspect-model --latent-dim 1000000000000", 1, "--latent-dim 1000000000000: must be at most"),
    ("inspect-model --image-size 1600000000", 1, "--image-size 1600000000: must be at most"),
    (f"{TRAIN} --batch-size {HUGE}", 1, "--batch-size|must be at most"),
    (f"eval good.ckpt --data good.npy --batch-size {HUGE}", 1, "--batch-size|must be at most"),
    ("prepare --synthetic 99999999999999 --out new", 1, "new: an array of 99,999,999,999,999|TB"),
    (f"{DRAW} --seed {HUGE} --out new", 2, "--seed"),
    ("sample good.ckpt --traverse 99999999999 --out new", 1, "--traverse 99999999999"),
    ("sample good.ckpt --out new --interpolate 0 99999", 1, "99999"),
    ("sample good.ckpt --out new --interpolate none.png none.png", 1, "none.png"),
]
IN = {"d": folder}
MORE = [
    *(Case(typed.replace(LONG, "nnn…"), typed, 1, "too long", {}) for typed in NAMING),
    *(Case(typed, typed, code, words, {}) for typed, code, words in NUMBERS),
    Case("a name that is a terminal's command", "inspect-data \x1b]0;x\x07\x9b2J.npy", 1,
         "?]0;x??2J.npy: no such file", {}),
    Case("a device to sample to", "sample good.ckpt --out /dev/null", 1, "/dev/null: is a file", {}),
    Case("a page that is a folder", "report good.ckpt --out d", 1, "d: is a folder", IN),
    Case("a foreign page", "report good.ckpt --out p", 1, "p: exists", {"p": b"<p>"}),
    Case("a foreign array", f"{DRAW} --out d", 1, "train_teacher.npy: exists|not written by",
         {"d/train_teacher.npy": ARRAY}),
    Case("a foreign PNG", "sample good.ckpt -n 1 --out d", 1, "grid.png: exists",
         {"d/grid.png": png(8, 8)}),
    Case("a bomb in the way", "sample good.ckpt -n 1 --out d", 1, "grid.png: exists",
         {"d/grid.png": png(60000, 60000)}),
    Case("photographs that are pipes", "prepare d", 1, "d: holds no photographs", {"d/a.png": pipe}),
    Case("folders in a ring", "prepare d", 1, "d: holds no photographs", {"d/a": link_to("../d")}),
    Case("a TOML, a path with a zero byte", "train --config bad.toml", 2, "--train-data",
         {"bad.toml": b'train_data = "a\\u0000b"'}),
    Case("a photograph of 2 TB", "prepare d", 1, "bytes are too many",
         {"d/a.png": of_size(2**41, png(8, 8)), "d/b.png": of_size(2**41, b"")}),
]  # fmt: skip
CASES = list(_cases())
