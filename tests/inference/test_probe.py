"""Probing a checkpoint: what is read from where, beside what, and who is kept apart."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import earteach as package
from earteach.data.arrays import EarArray
from earteach.data.crops import Crop
from earteach.data.prepare import prepare
from earteach.data.split import Split
from earteach.errors import EarTeachError
from earteach.inference.probe import Probed, ProbeResult, probe
from earteach.inference.probe_labels import read_labels
from earteach.metrics.linear_probes import landmark_errors
from earteach.model.pooled_features import pooled
from tests.conftest import Run, earteach

KINDS = ["codes", "pooled", "pca", "pixels", "random_codes", "random_pooled"]


def by_features(result: Probed, metric: str) -> dict[str, ProbeResult]:
    return {entry.features: entry for entry in result.results if entry.metric == metric}


@pytest.fixture(scope="module")
def array(ears: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 41 drawn training ears again, as those of 14 people, with landmarks beside them."""
    folder = tmp_path_factory.mktemp("probed")
    for name in ("teacher.npy", "landmarks.npy", "manifest.csv"):
        shutil.copy(ears / f"train_{name}", folder / f"some_{name}")
    rows = (folder / "some_manifest.csv").read_text().splitlines()
    people = [row.split(",") for row in rows[1:]]
    lines = [",".join([*row[:2], f"p{place // 3}", *row[3:]]) for place, row in enumerate(people)]
    (folder / "some_manifest.csv").write_text("\n".join([rows[0], *lines]))
    return folder / "some_teacher.npy"


@pytest.fixture(scope="module")
def probed(trained: Run, array: Path) -> Probed:
    return probe(trained.last, array, identities=True)


def test_everything_is_probed_beside_everything(probed: Probed):
    for metric in ("error", "rank1", "eer"):
        entries = by_features(probed, metric)
        assert list(entries) == KINDS
        for entry in entries.values():
            assert entry.interval is not None
            assert entry.interval[0] <= entry.value <= entry.interval[1]
    errors = by_features(probed, "error")
    assert {entry.images for entry in errors.values()} == {41}
    assert probed.groups == 14
    assert [errors[name].length for name in KINDS] == [16, 16384, 16, 768, 16, 16384]
    for name, entry in errors.items():
        if name == "pca":
            assert entry.below_pca is None
        else:
            assert entry.below_pca == pytest.approx(1 - entry.value / errors["pca"].value)
            assert entry.below_pca_interval is not None
    assert all(entry.below_pca is None for entry in by_features(probed, "rank1").values())


def test_the_errors_are_those_of_the_codes_and_maps(probed: Probed, trained: Run, array: Path):
    network = package.EarVAELightning.load_from_checkpoint(trained.last).eval()
    images = torch.from_numpy(np.load(array)).permute(0, 3, 1, 2) / 255
    labels = read_labels(EarArray.open(array), None, None, identities=False)
    assert labels.landmarks is not None
    with torch.inference_mode():
        codes = network.encode(images)
        maps = pooled(network.averaged.pyramid(network.features(images)))
        pixels = torch.nn.functional.adaptive_avg_pool2d(images, 16).flatten(1)
    for name, values in (("codes", codes), ("pooled", maps), ("pixels", pixels)):
        values = torch.cat([values, values * codes[:, -1:]], dim=1).numpy()
        errors = landmark_errors(values, labels.landmarks, labels.groups)
        assert by_features(probed, "error")[name].value == pytest.approx(errors.mean(), rel=1e-3)


def test_rows_without_landmarks_and_a_bad_training_array_are_skipped(
    trained: Run, array: Path, tmp_path: Path, caplog
):
    caplog.set_level(logging.INFO, "earteach")
    points = np.load(array.with_name("some_landmarks.npy"))
    points[[0, 5]] = np.nan
    np.save(tmp_path / "points.npy", points)
    np.save(tmp_path / "nan.npy", np.full((9, 32, 32, 3), np.nan, np.float32))
    state = torch.load(trained.last, weights_only=True)
    state["earteach"]["config"]["data"]["train_data"] = str(tmp_path / "nan.npy")
    torch.save(state, tmp_path / "moved.ckpt")
    result = probe(tmp_path / "moved.ckpt", array, landmarks=tmp_path / "points.npy")
    assert {entry.images for entry in result.results} == {len(points) - 2}
    assert [entry.metric for entry in result.results] == ["error"] * 5
    assert list(by_features(result, "error")) == [kind for kind in KINDS if kind != "pca"]
    assert all(entry.below_pca is None for entry in result.results)
    assert "no baselines: " in caplog.text


@pytest.mark.parametrize("crop", [Crop(16, side="left", side_pattern="-([lr])"), Crop(16, whole=True),
                                  Crop(16, fit="reflect", whole=True)])  # fmt: skip
def test_landmarks_of_photographs_fall_where_prepare_put_them(tmp_path: Path, crop: Crop):
    """In crops, in mirror images, and where edges were reflected."""
    rng, lines = np.random.default_rng(0), ["file,x0,y0,x1,y1,x2,y2"]
    (tmp_path / "photos").mkdir()
    for person in range(24):
        name = f"{person:02d}-{'lr'[person % 2]}.png"
        picture = rng.integers(0, 256, (60, 40 + person, 3), np.uint8)
        Image.fromarray(picture).save(tmp_path / "photos" / name)
        lines.append(",".join([name, *map(str, rng.uniform(0.2, 0.8, 6))]))
    points = tmp_path / "points.csv"
    points.write_text("\n".join(lines))
    written = prepare(tmp_path / "photos", tmp_path / "out", crop=crop, landmarks=points,
                      split=Split(0.5)).train.path  # fmt: skip
    ears = EarArray.open(written)
    beside = read_labels(ears, None, None, identities=False).landmarks
    by_name = read_labels(ears, points, None, identities=False).landmarks
    assert beside is not None
    assert by_name is not None
    assert np.isfinite(beside).all()
    np.testing.assert_allclose(by_name, beside, atol=1e-6)


def test_people_from_a_table_or_from_names(array: Path, tmp_path: Path):
    ears, length = EarArray.open(array), len(np.load(array, mmap_mode="r"))
    assert list(read_labels(ears, None, None, identities=False).groups[:4]) == ["p0"] * 3 + ["p1"]
    by_manifest = str(array.with_name("some_manifest.csv"))
    table = read_labels(ears, None, by_manifest, identities=False)
    assert list(table.groups[:4]) == ["p0"] * 3 + ["p1"]
    names = ["Zo\u00eb", "Zoe\u0308", "ZO\u00cb"] + [f"q{row}" for row in range(3, length)]
    lines = ["row,group", *(f"{row},{name}" for row, name in enumerate(names))]
    (tmp_path / "who.csv").write_text("\n".join(lines), encoding="utf-8")
    spelled = read_labels(ears, None, str(tmp_path / "who.csv"), identities=True)
    assert len(set(spelled.groups)) == length - 2  # one person, however her name is stored
    named = read_labels(ears, None, r"(\d)$", identities=True)  # the last digit of the name
    assert set(named.groups) <= set("0123456789")
    assert len(set(named.groups)) == 10


@pytest.mark.parametrize(("delimiter", "encoding"), [(",", "utf-8"), (";", "utf-16")])
def test_a_table_of_people_is_matched_by_number(
    array: Path, tmp_path: Path, delimiter: str, encoding: str
):
    ears = EarArray.open(array)
    people = [f"Zo\u00eb {row // 2}" for row in range(len(ears))]
    lines = [["Row", "Group"], *([str(row), f"{who} "] for row, who in enumerate(people))]
    shuffled = [lines[0], *reversed(lines[1:])]
    table = tmp_path / "who.csv"
    table.write_text("\n".join(map(delimiter.join, shuffled)), encoding=encoding)
    found = read_labels(ears, None, str(table), identities=False).groups
    assert list(found) == [who.casefold() for who in people]


def bad(folder: Path, length: int) -> list[tuple[dict[str, Any], str]]:
    numbered = [f"{row},a" for row in range(length)]
    tables = {
        "two": numbered[:2], "more": [*numbered, "0,b"], "twice": ["1,a"] * length,
        "blank": ["0,", *numbered[1:]], "short": ["0", *numbered[1:]], "words": ["a,b"] * length,
        "same": numbered,
    }  # fmt: skip
    for name, lines in tables.items():
        (folder / f"{name}.csv").write_text("\n".join(["row,group", *lines]))
    (folder / "else.csv").write_text("\n".join(["who,ear", *numbered]))
    wrong = f"a group for each of the array's {length} images, in the columns"
    np.save(folder / "few.npy", np.zeros((2, 55, 2), np.float32))
    added = np.full((length, 55, 2), 0.5, np.float32)
    np.save(folder / "added.npy", added)
    with (folder / "added.npy").open("ab") as file:
        file.write(b"x")
    (folder / "text.npy").write_text("points")
    return [
        ({"landmarks": folder / "none.npy"}, "none.npy: No such file"),
        ({"landmarks": folder / "few.npy"}, rf"shape \(2, 55, 2\).*\({length}, K, 2\)"),
        ({"landmarks": folder / "text.npy"}, "is not a .npy file"),
        *(
            ({"groups": str(folder / f"{name}.csv")}, wrong)
            for name in ("two", "more", "twice", "blank", "short", "words", "else")
        ),
        ({"landmarks": folder / "added.npy"}, "is not a .npy file"),
        ({"groups": str(folder / "none.csv")}, "none.csv: No such file"),
        ({"groups": str(folder / "same.csv")}, "landmarks of 1 people"),
        ({"groups": "^zoe"}, "--groups .zoe: finds nothing in drawn-"),
    ]


def test_labels_that_do_not_fit_are_refused(array: Path, tmp_path: Path):
    ears = EarArray.open(array)
    for options, words in bad(tmp_path, len(ears)):
        landmarks, groups = options.get("landmarks"), options.get("groups")
        with pytest.raises(EarTeachError, match=words):
            read_labels(ears, landmarks, groups, identities=False)


def test_nothing_to_probe_and_nobody_to_tell_apart(array: Path, tmp_path: Path):
    alone = tmp_path / "alone.npy"
    shutil.copy(array, alone)
    with pytest.raises(
        EarTeachError, match=r"nothing to probe: alone_landmarks\.npy is not beside"
    ):
        read_labels(EarArray.open(alone), None, None, identities=False)
    with pytest.raises(
        EarTeachError, match=r"alone_manifest\.csv is not beside it; name each image's person"
    ):
        read_labels(EarArray.open(alone), None, None, identities=True)
    with pytest.raises(EarTeachError, match="two images of one"):
        read_labels(EarArray.open(array), None, r"\d+$", identities=True)


def test_the_command_reports_what_the_function_returns(
    trained: Run, array: Path, probed: Probed, monkeypatch: pytest.MonkeyPatch
):
    out = earteach("probe", trained.last, "--data", array, "--identities", "--json").json
    monkeypatch.setattr("earteach.inference.probe.probe", lambda *_, **__: probed)
    assert out["checkpoint"] == str(trained.last)
    for entry, expected in zip(out["results"], probed.results, strict=True):
        assert entry == json.loads(json.dumps(vars(expected)))
    text = earteach("probe", trained.last, "--data", array).out
    assert "Landmark error in % of the ear's diagonal" in text
    assert "Recognition of people by cosine" in text
    errors = by_features(probed, "error")
    for name, entry in {"pooled features": errors["pooled"], "PCA codes": errors["pca"]}.items():
        row = next(line for line in text.splitlines() if name in line)
        assert f" {100 * entry.value:.2f} " in row
