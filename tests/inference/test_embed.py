"""Codes on disk: row for row those of the network, in three kinds of file."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import earteach
from earteach.config import InferenceConfig
from earteach.errors import EarTeachError
from earteach.inference import embedding_files
from earteach.inference.embed import embed
from earteach.model.pooled_features import pooled
from tests.conftest import earteach as command
from tests.inference.test_export import sha256

KINDS = [".npz", ".npy", ".parquet"]


@pytest.fixture(scope="module")
def val(ears) -> np.ndarray:
    return np.load(ears / "val_teacher.npy")


def read(path: Path) -> dict[str, np.ndarray]:
    """The columns of a file, by other means than those that wrote it."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    if path.suffix == ".npy":
        return {"mu": np.load(path)}
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")
    table = parquet.read_table(path)
    columns = {name: np.array(table[name].to_pylist()) for name in table.column_names}
    about = {name.decode(): value.decode() for name, value in table.schema.metadata.items()}
    return {"names": columns.pop("name"), **columns, **about}


def by_torch(checkpoint: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    model = earteach.load(checkpoint)
    batch = torch.from_numpy(images.transpose(0, 3, 1, 2) / np.float32(255))
    with torch.no_grad():
        mu, logvar = model.encode(batch)
        features = pooled(model.features(batch))
    return {"mu": mu.numpy(), "logvar": logvar.numpy(), "features": features.numpy()}


@pytest.mark.parametrize("batch_size", [2, 32])
@pytest.mark.parametrize("network", ["trained", "sideless"])
@pytest.mark.parametrize("kind", [".npz", ".parquet"])
def test_the_columns_are_those_of_the_network(
    trained, sideless, ears, val, tmp_path, kind, network, batch_size
):
    checkpoint = trained.last if network == "trained" else sideless
    result = embed(
        checkpoint, ears / "val_teacher.npy", tmp_path / f"codes{kind}",
        logvar=True, features=True, config=InferenceConfig(batch_size=batch_size),
    )  # fmt: skip
    seen = read(result.path)
    for name, wanted in by_torch(checkpoint, val).items():
        assert seen[name].shape == wanted.shape
        # An untrained network's maps reach far.
        np.testing.assert_allclose(seen[name], wanted, atol=1e-4, rtol=1e-5)
    assert (result.images, result.latent_dim, result.features) == (7, 16, 3072)
    assert str(seen["checkpoint"]) == checkpoint.name
    assert str(seen["checkpoint_sha256"]) == result.checkpoint_sha256 == sha256(checkpoint)
    assert [path.name for path in tmp_path.iterdir() if path.name != "run"] == [f"codes{kind}"]


@pytest.mark.parametrize("kind", KINDS)
def test_mu_alone(trained, ears, val, tmp_path, kind):
    result = embed(trained.last, ears / "val_teacher.npy", tmp_path / f"codes{kind}")
    seen = read(result.path)
    assert seen["mu"].dtype == (np.float64 if kind == ".parquet" else np.float32)
    np.testing.assert_allclose(seen["mu"], by_torch(trained.last, val)["mu"], atol=1e-4)
    assert {"logvar", "features"} & set(seen) == set()
    assert (result.logvar, result.features) == (False, None)


def test_ears_of_prepare_are_called_as_their_manifest_calls_them(trained, ears, tmp_path):
    rows = (ears / "val_manifest.csv").read_text().splitlines()[1:]
    result = embed(trained.last, ears / "val_teacher.npy", tmp_path / "codes.npz")
    assert read(result.path)["names"].tolist() == [row.split(",")[1] for row in rows]


def test_rows_of_other_arrays_are_called_by_their_numbers(trained, val, tmp_path, caplog):
    np.save(tmp_path / "a.npy", val)
    result = embed(trained.last, tmp_path / "a.npy", tmp_path / "codes.npz")
    assert read(result.path)["names"].tolist() == list("0123456")
    np.save(tmp_path / "x_teacher.npy", val)
    (tmp_path / "x_manifest.csv").write_text(
        "row,source,group,left,top,width,height,mirrored\n0,a,a,0,0,32,32,0\n"
    )
    with caplog.at_level(logging.INFO, "earteach"):
        result = embed(trained.last, tmp_path / "x_teacher.npy", tmp_path / "other.npz")
    assert read(result.path)["names"].tolist() == list("0123456")
    assert "has 1 rows and" in caplog.text


@pytest.mark.parametrize("kind", [".npz", ".parquet"])
def test_photographs_are_called_by_their_paths(trained, val, tmp_path, kind, caplog):
    photos = tmp_path / "photos"
    for place, name in enumerate(["b/1.png", "a/ü.png", "c.png"]):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(val[place]).save(photos / name)
    (photos / "broken.png").write_text("no picture")
    with caplog.at_level(logging.INFO, "earteach"):
        result = embed(trained.last, photos, tmp_path / f"codes{kind}")
    seen = read(result.path)
    assert seen["names"].tolist() == ["a/ü.png", "b/1.png", "c.png"]
    wanted = by_torch(trained.last, val[[1, 0, 2]])["mu"]
    np.testing.assert_allclose(seen["mu"], wanted, atol=1e-4)
    assert "left out" in caplog.text
    one = embed(trained.last, photos / "c.png", tmp_path / f"one{kind}")
    assert read(one.path)["names"].tolist() == ["c.png"]


def test_photographs_of_which_none_can_be_read_leave_nothing(trained, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"no picture")
    with pytest.raises(EarTeachError, match="none of the photographs could be read"):
        embed(trained.checkpoints, tmp_path / "photos", tmp_path / "out" / "codes.npz")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("option", ["logvar", "features"])
def test_npy_holds_mu_alone(trained, ears, tmp_path, option):
    with pytest.raises(EarTeachError, match=rf"^--{option}: a .npy file holds mu alone; .*\.npz$"):
        embed(trained.last, ears / "val_teacher.npy", tmp_path / "a.npy", **{option: True})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["codes.csv", "codes", "codes.npz.bak"])
def test_other_files_are_refused(trained, ears, tmp_path, name):
    with pytest.raises(EarTeachError, match=r"must end in \.npz, \.npy, \.parquet"):
        embed(trained.last, ears / "val_teacher.npy", tmp_path / name)


def test_parquet_needs_pyarrow(trained, ears, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_files, "find_spec", lambda name: None)
    with pytest.raises(EarTeachError, match=r"needs pyarrow; .*'earteach\[parquet\]'"):
        embed(trained.last, ears / "val_teacher.npy", tmp_path / "a.parquet")


@pytest.mark.parametrize("kind", [".npz", ".parquet"])
def test_an_own_file_is_replaced_and_another_stays(trained, ears, tmp_path, kind):
    out = tmp_path / f"codes{kind}"
    for features in (True, False):
        embed(trained.last, ears / "val_teacher.npy", out, features=features)
        assert ("features" in read(out)) == features
    for content in (b"", b"mine", foreign(kind, tmp_path)):
        out.write_bytes(content)
        with pytest.raises(EarTeachError, match="was not written by `earteach embed`"):
            embed(trained.last, ears / "val_teacher.npy", out)
        assert out.read_bytes() == content


def foreign(kind: str, folder: Path) -> bytes:
    """What another program might have written."""
    path = folder / f"foreign{kind}"
    if kind == ".npz":
        np.savez(path, mu=np.zeros(3))
    else:
        pyarrow = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table({"a": [1]}), path)
    return path.read_bytes()


def test_an_npy_file_stays(trained, ears, tmp_path):
    embed(trained.last, ears / "val_teacher.npy", tmp_path / "a.npy")
    with pytest.raises(EarTeachError, match="does not say who wrote it"):
        embed(trained.last, ears / "val_teacher.npy", tmp_path / "a.npy")


@pytest.mark.parametrize("kind", KINDS)
def test_what_fails_half_way_leaves_nothing(trained, val, tmp_path, kind):
    images = (val / 255).astype(np.float32)
    images[5] = np.nan
    np.save(tmp_path / "images.npy", images)
    config = InferenceConfig(batch_size=2)
    with pytest.raises(EarTeachError, match="image 5 holds NaN"):
        embed(trained.last, tmp_path / "images.npy", tmp_path / f"codes{kind}", config=config)
    assert [path.name for path in tmp_path.iterdir()] == ["images.npy"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_one_line(trained, ears, tmp_path, kind, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(EarTeachError, match="the disk is full; free space, then try again"):
        embed(trained.last, ears / "val_teacher.npy", tmp_path / f"codes{kind}")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_the_function_returns(trained, ears, tmp_path):
    line = [
        "embed", trained.last, "--input", ears / "val_teacher.npy", "--out", tmp_path / "a.npz",
        "--features", "--logvar",
    ]  # fmt: skip
    found = command(*line, "--json").json
    assert found == {
        "checkpoint": str(trained.last), "checkpoint_sha256": sha256(trained.last),
        "input": str(ears / "val_teacher.npy"), "path": str(tmp_path / "a.npz"),
        "images": 7, "latent_dim": 16, "logvar": True, "features": 3072,
    }  # fmt: skip
    text = command(*line).out
    for words in ("7 of", "a.npz", "16 numbers each, and their logvar", "3,072 numbers each"):
        assert words in text
    assert json.dumps(found)


def test_a_missing_input_leaves_no_folder(trained, tmp_path):
    with pytest.raises(EarTeachError, match="no such file"):
        embed(trained.last, tmp_path / "none.npy", tmp_path / "new" / "er" / "codes.npz")
    assert list(tmp_path.iterdir()) == []
