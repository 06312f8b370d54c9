"""Codes on disk: row for row those of the network, in three kinds of file."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import earteach
from earteach.config import InferenceConfig
from earteach.errors import EarTeachError
from earteach.inference.embed import embed
from earteach.model.pooled_features import pooled
from tests.conftest import earteach as command
from tests.inference.test_export import sha256

KINDS = [".npz", ".npy", ".parquet"]


@pytest.fixture(scope="module")
def val(ears) -> np.ndarray:
    return np.load(ears / "val_teacher.npy")


def read(path: Path) -> dict[str, np.ndarray]:
    """The columns of a file, read without earteach."""
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
        maps = model.features(batch)
        features = pooled(maps if model.pyramid is None else model.pyramid(maps))
    return {"mu": mu.numpy(), "logvar": logvar.numpy(), "features": features.numpy()}


@pytest.mark.parametrize(
    ("kind", "network", "batch_size"),
    [(".npz", "trained", 2), (".npz", "sideless", 32), (".parquet", "trained", 3)],
)
def test_the_columns_are_those_of_the_network(
    trained, sideless, ears, val, tmp_path, kind, network, batch_size
):
    checkpoint = trained.last if network == "trained" else sideless
    result = embed(
        checkpoint, ears / "val_teacher.npy", tmp_path / f"codes{kind}",
        logvar=True, features=True, config=InferenceConfig(batch_size=batch_size),
    )  # fmt: skip
    columns = read(result.path)
    for name, expected in by_torch(checkpoint, val).items():
        assert columns[name].shape == expected.shape
        # The maps of a network trained so little have values of hundreds, and sums of such values.
        atol = 1e-5 * max(10, np.abs(expected).max())
        np.testing.assert_allclose(columns[name], expected, atol=atol, rtol=1e-5)
    assert (result.images, result.latent_dim, result.features) == (7, 16, 16384)
    assert str(columns["checkpoint"]) == checkpoint.name
    assert str(columns["checkpoint_sha256"]) == result.checkpoint_sha256 == sha256(checkpoint)
    assert [path.name for path in tmp_path.iterdir() if path.name != "run"] == [f"codes{kind}"]


@pytest.mark.parametrize("kind", KINDS)
def test_mu_alone(trained, ears, val, tmp_path, kind):
    result = embed(trained.last, ears / "val_teacher.npy", tmp_path / f"codes{kind}")
    if kind == ".npy":
        with pytest.raises(EarTeachError, match="does not say who wrote it"):
            embed(trained.last, ears / "val_teacher.npy", result.path)
    columns = read(result.path)
    np.testing.assert_allclose(columns["mu"], by_torch(trained.last, val)["mu"], atol=1e-4)
    assert {"logvar", "features"} & set(columns) == set()
    assert (result.logvar, result.features) == (False, None)


def test_rows_of_arrays_are_named_by_their_manifest_or_number(trained, ears, val, tmp_path, caplog):
    rows = (ears / "val_manifest.csv").read_text().splitlines()[1:]
    np.save(tmp_path / "plain.npy", val)
    np.save(tmp_path / "x_teacher.npy", val)
    (tmp_path / "x_manifest.csv").write_text(
        "row,source,group,left,top,width,height,mirrored\n0,a,a,0,0,32,32,0\n"
    )
    caplog.set_level(logging.INFO, "earteach")
    for array, expected in (
        (ears / "val_teacher.npy", [row.split(",")[1] for row in rows]),
        (tmp_path / "plain.npy", list("0123456")),
        (tmp_path / "x_teacher.npy", list("0123456")),
    ):
        result = embed(trained.last, array, tmp_path / "codes.npz")
        assert read(result.path)["names"].tolist() == expected
    assert "has 1 rows but" in caplog.text


@pytest.mark.parametrize("kind", [".npz", ".parquet"])
def test_photographs_are_named_by_their_paths(trained, val, tmp_path, kind, caplog):
    photos = tmp_path / "photos"
    for row, name in enumerate(["b/1.png", "a/ü.png", "c.png"]):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(val[row]).save(photos / name)
    (photos / "broken.png").write_text("no picture")
    with caplog.at_level(logging.INFO, "earteach"):
        result = embed(trained.last, photos, tmp_path / f"codes{kind}")
    assert "broken.png" in caplog.text
    columns = read(result.path)
    assert columns["names"].tolist() == ["a/ü.png", "b/1.png", "c.png"]
    expected = by_torch(trained.last, val[[1, 0, 2]])["mu"]
    np.testing.assert_allclose(columns["mu"], expected, atol=1e-4)
    one = embed(trained.last, photos / "c.png", tmp_path / f"one{kind}")
    assert read(one.path)["names"].tolist() == ["c.png"]


def test_inputs_without_images_leave_nothing(trained, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    for source, words in ((tmp_path, "none of the photographs"), (tmp_path / "b", "no such file")):
        with pytest.raises(EarTeachError, match=words):
            embed(trained.checkpoints, source, tmp_path / "new" / "er" / "codes.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_files_that_cannot_be_written_are_refused(trained, ears, tmp_path, monkeypatch):
    monkeypatch.setattr("earteach.inference.embed.find_spec", lambda name: None)
    for name, options, words in (
        ("codes.npz.bak", {}, r"must end in \.npz, \.npy, \.parquet"),
        ("a.npy", {"logvar": True}, r"^--logvar: a .npy file holds only mu; .*\.npz$"),
        ("a.parquet", {}, r"needs pyarrow; .*'earteach\[parquet\]'"),
        ("n" * 300 + ".npz", {}, "cannot be written: File name too long"),
    ):
        with pytest.raises(EarTeachError, match=words):
            embed(trained.last, ears / "val_teacher.npy", tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [".npz", ".parquet"])
def test_our_file_is_replaced_and_another_stays(trained, ears, tmp_path, kind):
    out, other = tmp_path / f"codes{kind}", tmp_path / f"other{kind}"
    for features in (True, False):
        embed(trained.last, ears / "val_teacher.npy", out, features=features)
        assert ("features" in read(out)) == features
    if kind == ".npz":
        np.savez(other, mu=np.zeros(3))
    else:
        pyarrow = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table({"a": [1]}), other)
    for content in (b"", b"mine", other.read_bytes()):
        out.write_bytes(content)
        with pytest.raises(EarTeachError, match="was not written by `earteach embed`"):
            embed(trained.last, ears / "val_teacher.npy", out)
        assert out.read_bytes() == content


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_half_way_leaves_nothing(trained, ears, val, tmp_path, kind, monkeypatch):
    images = (val / 255).astype(np.float32)
    images[5] = np.nan
    np.save(tmp_path / "images.npy", images)
    config = InferenceConfig(batch_size=2)
    with pytest.raises(EarTeachError, match="image 5 holds NaN"):
        embed(trained.last, tmp_path / "images.npy", tmp_path / f"codes{kind}", config=config)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(EarTeachError, match="the disk is full; free space, then try again"):
        embed(trained.last, ears / "val_teacher.npy", tmp_path / f"codes{kind}")
    assert [path.name for path in tmp_path.iterdir()] == ["images.npy"]


def test_the_command_reports_what_the_function_returns(trained, ears, tmp_path):
    array, out = ears / "val_teacher.npy", tmp_path / "a.npz"
    options = ["--input", array, "--out", out, "--features", "--logvar", "--json"]
    assert command("embed", trained.last, *options).json == {
        "checkpoint": str(trained.last), "checkpoint_sha256": sha256(trained.last),
        "input": str(array), "path": str(out),
        "images": 7, "latent_dim": 16, "logvar": True, "features": 16384,
    }  # fmt: skip
