"""Landmarkers: trained on labelled ears, and used on pictures."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

import earteach
from earteach.data.annotations.landmark_formats import read_landmarks
from earteach.errors import EarTeachError
from earteach.inference import landmark_training
from earteach.inference.landmark_training import (
    LabelledEars,
    errors,
    learn,
    varied_batches,
)
from earteach.model.landmark_head import LabelledHeat, Landmarks, heat_map_loss, places_in
from tests.conftest import earteach as command
from tests.inference.conftest import untrained

COUNT = 55


@pytest.fixture(scope="module")
def landmarker(trained, ears, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("landmarker")
    result = command(
        "landmarks",
        trained.last,
        "--train",
        ears,
        "--out",
        out,
        "--steps",
        150,
        "--no-drawn",
        "--no-compare",
        "--json",
    )
    assert result.code == 0, result.err
    (out / "printed.json").write_text(result.out)
    return out / "landmarks.ckpt"


@pytest.fixture(scope="module")
def untaught(trained, tmp_path_factory) -> Path:
    """A checkpoint of a network without landmarks."""
    path = tmp_path_factory.mktemp("untaught") / "last.ckpt"
    shutil.copy(trained.last, path)
    return untrained(path, landmarks=0)


def points_by_torch(checkpoint: Path, images: np.ndarray) -> np.ndarray:
    batch = torch.from_numpy(images.transpose(0, 3, 1, 2) / np.float32(255))
    with torch.no_grad():
        return earteach.load(checkpoint).landmarks(batch).points.numpy()


def mean_error(points: np.ndarray, true: np.ndarray) -> float:
    """As the docs define it: distances over the diagonal of the true points' box."""
    diagonals = np.linalg.norm(true.max(axis=1) - true.min(axis=1), axis=1)
    return float((np.linalg.norm(points - true, axis=2).mean(axis=1) / diagonals).mean())


def test_the_checkpoint_makes_the_error_that_was_reported(landmarker, ears):
    printed = json.loads((landmarker.parent / "printed.json").read_text())
    images, true = (np.load(ears / f"val_{name}.npy") for name in ("teacher", "landmarks"))
    error = mean_error(points_by_torch(landmarker, images), true)
    assert printed["error"] == pytest.approx(error, rel=1e-4)
    assert printed["checkpoint"] == str(landmarker)
    assert (printed["landmarks"], printed["held_out"], printed["drawn"]) == (COUNT, len(images), 0)
    # Better than the mean of the training landmarks, and than nothing learned.
    mean = np.load(ears / "train_landmarks.npy").mean(axis=0)
    assert error < 0.9 * mean_error(np.broadcast_to(mean, true.shape), true)


def test_the_same_seed_gives_the_same_landmarker(trained, ears, tmp_path):
    weights = [
        torch.load(
            earteach.train_landmarks(
                trained.last, ears, tmp_path / name, drawn=False, compare=False, steps=2, seed=seed
            ).checkpoint
        )["state_dict"]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert any(not torch.equal(value, weights[2][name]) for name, value in weights[0].items())


def test_hidden_landmarks_and_those_outside_are_not_learned():
    """A wrong target for them would pull all heat maps to it."""

    class Heat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = nn.Parameter(torch.zeros(1, 2, 64))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            heat = self.logits.log_softmax(dim=2).view(1, 2, 8, 8)
            return heat.expand(len(images), -1, -1, -1)

    model = Heat()
    landmarks = torch.tensor([[[0.2, 0.7], [float("nan")] * 2], [[0.2, 0.7], [1.4, 0.5]]])
    batch = LabelledEars(torch.rand(2, 3, 16, 16), landmarks)
    groups = [{"params": list(model.parameters()), "lr": 0.3}]

    def loss_of(ears: LabelledEars) -> torch.Tensor:
        return heat_map_loss(LabelledHeat(model(ears.images), ears.landmarks))

    list(learn(loss_of, groups, [batch] * 60, 60))
    points = places_in(model(batch.images)).points[0]
    torch.testing.assert_close(points, torch.tensor([[0.2, 0.7], [0.5, 0.5]]), atol=0.03, rtol=0)


def test_landmarks_follow_their_places_into_the_varied_batches(monkeypatch):
    """Each image is a soft spot at its landmark."""
    monkeypatch.setattr("earteach.data.strong_views._recoloured", lambda x, generator: x)
    at = (torch.arange(64) + 0.5) / 64
    places = 0.4 + 0.2 * torch.rand(40, 1, 2, generator=torch.Generator().manual_seed(3))
    squares = (at - places[:, :, :1]) ** 2 + ((at - places[:, :, 1:]) ** 2).transpose(1, 2)
    spots = (255 * torch.exp(-squares / (2 * 0.03**2))).to(torch.uint8)[:, None]
    batch = next(varied_batches(LabelledEars(spots, places), None, 0))
    weight = batch.images[:, 0] / batch.images[:, 0].sum(dim=(1, 2), keepdim=True)
    centres = torch.stack([(weight.sum(1) * at).sum(1), (weight.sum(2) * at).sum(1)], dim=1)
    assert (batch.landmarks[:, 0] - centres).abs().max() < 0.01
    assert batch.landmarks.std() > 0.05


def test_half_of_a_batch_is_drawn_where_the_landmarks_are_the_same(
    trained, ears, tmp_path, monkeypatch
):
    monkeypatch.setattr(landmark_training, "_DRAWN", 8)
    result = earteach.train_landmarks(trained.last, ears, tmp_path, steps=1)
    assert result.drawn == 8
    assert result.error_from_noise not in (None, result.error)
    white = LabelledEars(
        torch.full((4, 3, 32, 32), 255, dtype=torch.uint8), torch.full((4, 1, 2), 0.5)
    )
    black = LabelledEars(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.full((4, 1, 2), 0.5))
    means = next(varied_batches(white, black, 0)).images.mean(dim=(1, 2, 3))
    assert (means[:8] > means[8:]).all()


@pytest.fixture(scope="module")
def photographs(ears, tmp_path_factory) -> Path:
    """Validation ears as photographs of other sizes, one in a larger picture."""
    folder = tmp_path_factory.mktemp("photographs")
    for row, image in enumerate(np.load(ears / "val_teacher.npy")[:3]):
        Image.fromarray(image).resize((80, 96 + row)).save(folder / f"{row}.png")
    return folder


def test_points_are_found_and_written(landmarker, photographs, tmp_path):
    result = command(
        "landmarks", landmarker, "--input", photographs, "--out", tmp_path, "--json"
    ).json
    assert result["checkpoint"] == str(landmarker)
    ears_found = result["images"]
    assert [Path(ear["input"]).name for ear in ears_found] == ["0.png", "1.png", "2.png"]
    with (tmp_path / "landmarks.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    for row, (ear, cells) in enumerate(zip(ears_found, rows[1:], strict=True)):
        points, size = np.array(ear["points"]), np.array([80, 96 + row])
        assert points.shape == (COUNT, 2)
        assert len(ear["confidence"]) == COUNT
        assert all(0 <= value <= 1 for value in ear["confidence"])
        assert cells[0] == f"{row}.png"
        np.testing.assert_allclose(
            np.array(cells[1:], float).reshape(-1, 2), points * size, atol=0.01
        )
        lines = (tmp_path / f"{row}.pts").read_text().splitlines()[3:-1]
        in_pts = np.array([line.split() for line in lines], float)
        np.testing.assert_allclose(in_pts, points * size + 0.5, atol=1e-3)
        assert size_of(ear["output"]) == tuple(size)
    for file in (tmp_path / "landmarks.csv", tmp_path):
        (annotation,) = read_landmarks(file).of([Path("1.png")])[0]
        read = annotation.in_pixels((80, 97)).points
        np.testing.assert_allclose(read, np.array(ears_found[1]["points"]) * (80, 97), atol=0.01)


@pytest.fixture
def sees_spots(monkeypatch):
    """Three landmarks: where a picture is red, green and blue."""

    def landmarks(self, images: torch.Tensor) -> Landmarks:
        spots = (2 * images - images.sum(dim=1, keepdim=True) - 0.5).clamp(min=0)
        heat = (spots / spots.sum(dim=(2, 3), keepdim=True)).log()
        return places_in(heat)

    monkeypatch.setattr("earteach.model.vae.ConvVAE.landmarks", landmarks)


SPOTS = np.array([[40, 20], [60, 50], [30, 90]])


def size_of(path: str | Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def picture(width: int, height: int, left: int = 0, top: int = 0) -> Image.Image:
    image = np.zeros((height, width, 3), np.uint8)
    for channel, (x, y) in enumerate(SPOTS + np.array([left, top])):
        image[y - 5 : y + 5, x - 5 : x + 5, channel] = 255
    return Image.fromarray(image)


@pytest.mark.usefixtures("sees_spots")
def test_points_are_where_the_picture_shows_them(landmarker, tmp_path):
    """In pictures that the ear fills, of any shape, and in boxes of larger ones."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, size in (("wide", (160, 110)), ("high", (90, 140))):
        picture(*size).save(folder / f"{name}.png")
        picture(*size).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
            folder / f"{name}-mirrored.png"
        )
    for ear in earteach.landmarks(landmarker, [folder], tmp_path / "out").images:
        size = size_of(ear.input)
        expected = SPOTS * [1, 1]
        if "mirrored" in ear.input:
            expected[:, 0] = size[0] - expected[:, 0]
        assert np.abs(np.array(ear.points) * size - expected).max() < 1
        assert ear.confidence == pytest.approx((1, 1, 1))
    picture(400, 300, 200, 150).save(tmp_path / "scene.png")
    (tmp_path / "boxes.csv").write_text("file,x,y,w,h\nscene.png,220,155,60,100\n")
    (ear,) = earteach.landmarks(
        landmarker, [tmp_path / "scene.png"], tmp_path / "out", boxes=tmp_path / "boxes.csv"
    ).images
    assert np.abs(np.array(ear.points) * (400, 300) - SPOTS - (200, 150)).max() < 1
    assert size_of(ear.output) == (130, 130)  # the box and 15 % of its height on each side


def test_exported_landmarks_run_in_onnxruntime(landmarker, ears, tmp_path):
    result = command(
        "export", landmarker, "--part", "landmarks", "--out", tmp_path / "ear.onnx", "--json"
    ).json
    assert result["parity"]["passed"]
    assert [(port["name"], port["shape"]) for port in result["outputs"]] == [
        ("points", ["batch", COUNT, 2]), ("confidence", ["batch", COUNT]),
    ]  # fmt: skip
    images = np.load(ears / "val_teacher.npy")[:2]
    session = onnxruntime.InferenceSession(
        (tmp_path / "ear.onnx").read_bytes(), providers=["CPUExecutionProvider"]
    )
    batch = images.transpose(0, 3, 1, 2) / np.float32(255)
    points, _ = session.run(None, {"images": batch})
    np.testing.assert_allclose(points, points_by_torch(landmarker, images), atol=1e-4)


def test_a_folder_of_safetensors_finds_the_same_landmarks(landmarker, photographs, tmp_path):
    folder = earteach.export(
        landmarker, tmp_path / "shared", format="safetensors", part="landmarks"
    ).path
    one, other = (
        [ear.points for ear in earteach.landmarks(path, [photographs], tmp_path / "out").images]
        for path in (landmarker, folder)
    )
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_landmarker_is_also_a_backbone_but_no_vae(untaught, landmarker, tmp_path):
    backbone = earteach.EarBackbone.from_pretrained(landmarker, fpn="trained")
    assert backbone(torch.rand(1, 3, 32, 32))["stride4"].shape == (1, 64, 8, 8)
    with pytest.raises(EarTeachError, match="holds the network's landmarks but no"):
        earteach.load(landmarker).encode(torch.rand(1, 3, 32, 32))
    for arguments, words in (
        (["resume", landmarker], "was trained by `earteach landmarks`"),
        (["export", landmarker, "--out", tmp_path / "a"], "holds only the landmarks of a network"),
        (["export", untaught, "--part", "landmarks", "--out", tmp_path / "a"], "finds none"),
    ):
        result = command(*arguments)
        assert result.code == 1
        assert words in result.err


def test_photographs_and_their_landmarks_can_be_learned_from_directly(
    trained, photographs, tmp_path
):
    fractions = ",".join(f"{value:.2f}" for value in np.linspace(0.2, 0.8, 6))
    labels = tmp_path / "points.csv"
    labels.write_text(
        "file,x0,y0,x1,y1,x2,y2\n" + "".join(f"{row}.png,{fractions}\n" for row in range(3))
    )
    result = command(
        "landmarks", trained.last, "--train", labels, "--input", photographs, "--out", tmp_path / "out",
        "--steps", 2, "--no-compare", "--json",
    ).json  # fmt: skip
    assert (result["landmarks"], result["ears"] + result["held_out"]) == (3, 3)
    assert result["error_from_noise"] is None
    assert earteach.load(result["checkpoint"]).config.landmarks == 3


def test_a_picture_too_long_to_be_cut_is_left_out(landmarker, photographs, tmp_path):
    folder = shutil.copytree(photographs, tmp_path / "more")
    Image.new("RGB", (14_000, 64), "tan").save(folder / "long.png")
    result = command(
        "landmarks", landmarker, "--input", folder, "--out", tmp_path / "out", "--json"
    )
    assert len(result.json["images"]) == 3
    assert "long.png: a square of 14000×14000 pixels is too large" in result.err


def test_what_cannot_be_done_is_one_line(
    trained, untaught, landmarker, ears, photographs, tmp_path
):
    cases = [
        ([untaught, "--input", photographs], "finds no landmarks"),
        ([landmarker, "--input", tmp_path / "none.png"], "No such file"),
        (
            [trained.last, "--train", tmp_path],
            "is no folder that `earteach prepare --landmarks` wrote",
        ),
        ([trained.last, "--train", photographs], "is no folder that"),
    ]
    for arguments, words in cases:
        result = command("landmarks", *arguments, "--out", tmp_path / "out")
        assert (result.code, result.out) == (1, ""), result.err
        assert words in result.err
        assert len(result.err.splitlines()) == 1
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("train_teacher.npy", "val_teacher.npy"):
        shutil.copy(ears / name, bare)
    assert (
        "train_landmarks.npy: No such file"
        in command("landmarks", trained.last, "--train", bare, "--out", tmp_path / "out").err
    )
    np.save(bare / "train_landmarks.npy", np.zeros((2, 3, 2), np.float32))
    assert (
        "holds float32 of shape (2, 3, 2)"
        in command("landmarks", trained.last, "--train", bare, "--out", tmp_path / "out").err
    )
    (bare / "train_landmarks.npy").write_bytes(b"\x93NUMPY\1\0\x08\0{[](1)}\n")
    assert (
        "is not a .npy file"
        in command("landmarks", trained.last, "--train", bare, "--out", tmp_path / "out").err
    )
    assert not (tmp_path / "out").exists()
    (tmp_path / "boxes.csv").write_text("file,x,y,w,h\n0.png,900,900,50,50\n")
    result = command(
        "landmarks", landmarker, "--input", photographs / "0.png", "--boxes", tmp_path / "boxes.csv",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert (result.code, len(result.err.splitlines())) == (1, 1)
    assert "lies outside" in result.err
    for arguments in (
        [landmarker],
        [landmarker, "--train", ears, "--boxes", bare],
        [landmarker, "--input", photographs, "--steps", 3],
    ):
        assert command("landmarks", *arguments, "--out", tmp_path).code == 2


def test_other_files_are_not_replaced(trained, ears, landmarker, photographs, tmp_path):
    for name in ("landmarks.csv", "1.pts", "2.png"):
        out = tmp_path / name.replace(".", "-")
        out.mkdir()
        (out / name).write_text("mine")
        result = command("landmarks", landmarker, "--input", photographs, "--out", out)
        assert result.code == 1
        assert "was not written by" in result.err
        assert (out / name).read_text() == "mine"
    by_hand = {
        "1.pts": "version: 1\nn_points: 1\n{\n1 1\n}\n",
        "landmarks.csv": "file,x0,y0,x1,y1\n",
    }
    for name, text in by_hand.items():
        out = tmp_path / f"by-hand-{name}"
        out.mkdir()
        (out / name).write_text(text)
        result = command("landmarks", landmarker, "--input", photographs, "--out", out)
        assert "was not written by" in result.err
        assert (out / name).read_text() == text
    own = tmp_path / "trained"
    own.mkdir()
    shutil.copy(trained.last, own / "landmarks.ckpt")
    result = command("landmarks", trained.last, "--train", ears, "--out", own, "--steps", 1)
    assert "was not written by `earteach landmarks`" in result.err
    for _ in range(2):  # its own may be
        assert (
            command("landmarks", landmarker, "--input", photographs, "--out", tmp_path / "o").code
            == 0
        )


def test_errors_are_those_of_each_ear():
    ears = LabelledEars(
        torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
        torch.tensor([[[0.0, 0.0], [0.3, 0.4]], [[0.5, 0.5], [0.5, 1.0]]]),
    )
    heat = torch.full((2, 2, 4, 4), -1e4)
    heat[:, :, 1, 1] = 0  # (0.375, 0.375)
    expected = mean_error(np.full((2, 2, 2), 0.375), ears.landmarks.numpy())
    assert errors(lambda images: heat, ears).mean() == pytest.approx(expected)
