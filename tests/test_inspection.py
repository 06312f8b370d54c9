"""Each problem is planted once in a set that is otherwise clean, and found where it is."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from earteach.config import KLDConfig, ModelConfig, TrainConfig
from earteach.data.arrays import EarArray
from earteach.data.augmentation import Augmentation
from earteach.errors import EarTeachError
from earteach.images import side_by_side, with_caption
from earteach.inspection import Problem, inspect_data
from earteach.inspection.inspection_report import Leakage
from earteach.inspection.survey import find_value_range, stored_images
from earteach.randomness import Purpose, derive
from earteach.synthetic.drawn_ear import draw_ear

SIZE = 64


@pytest.fixture(scope="session")
def drawn() -> np.ndarray:
    return np.stack([draw_ear(0, index, SIZE).image for index in range(52)])


@pytest.fixture
def ears(drawn: np.ndarray) -> np.ndarray:
    """A clean set, the test's own to spoil."""
    return drawn[:40].copy()


@pytest.fixture
def others(drawn: np.ndarray) -> np.ndarray:
    return drawn[40:].copy()


def saved(folder: Path, images: np.ndarray, name: str = "train.npy") -> Path:
    np.save(folder / name, images)
    return folder / name


def problems(folder: Path, train: np.ndarray, val: np.ndarray | None = None) -> list[Problem]:
    val_path = None if val is None else saved(folder, val, "val.npy")
    return list(inspect_data(saved(folder, train), val_path).problems)


def summary(folder: Path, train: np.ndarray, val: np.ndarray | None = None) -> list[tuple]:
    """All problems in short: a planted one must be the only one."""
    return [(p.severity, p.code, p.indices, p.array) for p in problems(folder, train, val)]


def as_unit(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / 255


def jpeg(image: np.ndarray) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], 1)


def brighter(image: np.ndarray) -> np.ndarray:
    return np.clip(image * 1.1, 0, 255).astype(np.uint8)


def through_48(image: np.ndarray) -> np.ndarray:
    small = cv2.resize(image, (48, 48), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def mirrored(image: np.ndarray) -> np.ndarray:
    return image[:, ::-1]


COPIES = [jpeg, brighter, through_48, mirrored, lambda image: jpeg(mirrored(brighter(image)))]


def test_a_clean_set_has_no_problems(tmp_path, ears, others):
    inspection = inspect_data(saved(tmp_path, ears), saved(tmp_path, others, "val.npy"))
    assert inspection.problems == ()
    assert inspection.leakage == Leakage(exact=0, near=0)
    assert (inspection.train.images, inspection.val.images) == (40, 12)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64", "float16"])
@pytest.mark.parametrize("layout", ["nhwc", "nchw", "nhw"])
def test_numbers_are_those_of_the_whole_array(tmp_path, ears, monkeypatch, dtype, layout):
    monkeypatch.setattr("earteach.inspection.survey.VALUES_PER_CHUNK", 7 * SIZE**2 * 3)
    stored = {"uint8": ears, "uint16": ears.astype(np.uint16) * 257}.get(dtype, ears / 255.0)
    stored = stored.astype(dtype)
    stored = {"nhwc": stored, "nchw": stored.transpose(0, 3, 1, 2), "nhw": stored[..., 0]}[layout]
    report = inspect_data(saved(tmp_path, stored)).train
    whole = stored.astype(np.float64)
    white = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    assert (report.layout, report.dtype) == (layout, dtype)
    assert (report.images, report.height, report.width) == (40, SIZE, SIZE)
    assert (report.min, report.max) == (whole.min(), whole.max())
    assert report.mean == pytest.approx(whole.mean(), rel=1e-9)
    assert report.std == pytest.approx(whole.std(), rel=1e-9)
    channels = {"nhwc": (0, 1, 2), "nchw": (0, 2, 3), "nhw": None}[layout]
    means, stds = whole.mean(channels) / white, whole.std(channels) / white
    assert report.channel_means == pytest.approx(np.atleast_1d(means), rel=1e-9)
    assert report.channel_stds == pytest.approx(np.atleast_1d(stds), rel=1e-9)


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float16", "float64"])
def test_good_values_are_read_as_the_dataset_reads_them(tmp_path, dtype):
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 65536, (6, 8, 8, 3))
    stored = levels.astype(dtype) if dtype == "uint16" else (levels / 65535).astype(dtype)
    array = EarArray.open(saved(tmp_path, stored))
    ours = find_value_range(array).to_rgb(stored_images(array, slice(0, 6)))
    assert np.array_equal(ours, np.stack([array.image_uint8(row) for row in range(6)]))


def test_statistics_leave_out_what_is_not_finite(tmp_path, ears):
    images = as_unit(ears)
    images[3, 5, 5, 1], images[7, 0, 0, 0], images[9, 0, 0, 0] = np.nan, np.inf, -np.inf
    inspection = inspect_data(saved(tmp_path, images))
    known = images[np.isfinite(images)].astype(np.float64)
    report = inspection.train
    assert (report.min, report.max, report.non_finite) == (known.min(), known.max(), 3)
    assert report.mean == pytest.approx(known.mean(), rel=1e-9)
    assert report.std == pytest.approx(known.std(), rel=1e-9)
    assert [(p.code, p.indices) for p in inspection.problems] == [("non-finite", (3, 7, 9))]
    report = inspect_data(saved(tmp_path, np.full((2, 8, 8, 3), np.nan))).train
    assert (report.min, report.max, report.mean, report.std) == (None, None, None, None)
    assert (report.channel_means, report.channel_stds) == (None, None)
    assert (report.non_finite, report.constant, report.duplicates) == (2, 0, 1)


def letterboxed(image: np.ndarray, colour: int, quality: int = 90) -> np.ndarray:
    """A frame of a video: bars above and below, then JPEG at a larger size."""
    large = cv2.resize(image, (256, 256), interpolation=cv2.INTER_CUBIC)
    large[:50], large[-44:] = colour, colour
    coded = cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.resize(cv2.imdecode(coded, 1), (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def half_black(image: np.ndarray) -> np.ndarray:
    dark = image // 20
    dark[:32] = 0
    return dark


def with_bar(image: np.ndarray, rows: slice, colour: int) -> np.ndarray:
    barred = image.copy()
    barred[rows] = colour
    return barred


def on_plain_background(image: np.ndarray) -> np.ndarray:
    outside = np.hypot(*(np.mgrid[:SIZE, :SIZE] - SIZE / 2)) > 26
    return np.where(outside[..., None], 20, image).astype(np.uint8)


@pytest.mark.parametrize(
    ("code", "spoil"),
    [
        ("nearly-black", half_black),
        ("nearly-white", lambda image: 255 - image // 20),
        ("clipped", lambda image: with_bar(image, slice(24), 255)),
        ("blurred", lambda image: cv2.GaussianBlur(image, (0, 0), 4)),
        ("letterboxed", lambda image: letterboxed(image, 0)),
        ("letterboxed", lambda image: letterboxed(image, 120, quality=60)),
        ("letterboxed", lambda image: letterboxed(image.swapaxes(0, 1), 255).swapaxes(0, 1)),
        (None, lambda image: image // 8 + 100),  # dim, but not blurred
        (None, on_plain_background),
        (None, lambda image: with_bar(image, slice(12), 30)),
    ],
)
def test_visible_faults(tmp_path, ears, code, spoil):
    ears[7], ears[11] = spoil(ears[7]), spoil(ears[11])
    expected = [] if code is None else [("warning", code, (7, 11), "train")]
    assert summary(tmp_path, ears) == expected


@pytest.mark.parametrize(
    ("code", "spoil"),
    [
        ("gray-as-rgb", lambda images: np.repeat(images[..., :1], 3, axis=3)),
        ("channels-swapped", lambda images: images[..., ::-1]),
        ("few-images", lambda images: images[:31]),
        ("too-few-images", lambda images: images[:1]),
        (None, lambda images: images[:32]),
    ],
)
def test_faults_of_the_whole_array(tmp_path, ears, code, spoil):
    severity = "error" if code == "too-few-images" else "warning"
    expected = [] if code is None else [(severity, code, (), "train")]
    assert summary(tmp_path, spoil(ears)) == expected


def test_duplicates_and_the_order_of_problems(tmp_path, ears, others):
    rows = (20, 22, 24, 26, 28, 30, 32, 34)
    ears[list(rows)] = ears[4]
    others[6] = 77
    assert summary(tmp_path, ears, others) == [
        ("error", "constant", (6,), "val"),
        ("warning", "duplicates", rows, "train"),
    ]
    inspection = inspect_data(tmp_path / "train.npy")
    assert inspection.train.duplicates == 8
    start = f"{tmp_path / 'train.npy'}: images 20, 22, 24, 26, 28 and 3 more: "
    assert inspection.problems[0].message.startswith(start)


def test_arrays_that_do_not_match(tmp_path, ears, others):
    val = others[:, ::2, ::2, 0].astype(np.uint16) * 257
    assert summary(tmp_path, ears, val) == [
        ("warning", "size-mismatch", (), "val"),
        ("warning", "channels-mismatch", (), "val"),
        ("warning", "scale-mismatch", (), "val"),
    ]


def test_leaks_across_layouts_types_channels_and_sizes(tmp_path, ears, others):
    others[3], others[8] = ears[11], ears[0]
    exact = ("error", "leakage-exact", (3, 8), "val")
    train = as_unit(ears).transpose(0, 3, 1, 2)
    assert summary(tmp_path, train, others)[0] == exact
    gray, gray_others = ears[..., 0], np.repeat(others[..., :1], 3, axis=3)
    assert summary(tmp_path, gray, gray_others)[0] == exact
    others[5] = mirrored(ears[12])
    leakage = inspect_data(saved(tmp_path, ears), saved(tmp_path, others, "val.npy")).leakage
    assert leakage == Leakage(exact=2, near=1)
    resized = np.stack([cv2.resize(image, (100, 90)) for image in others])
    assert summary(tmp_path, ears, resized)[-1] == ("warning", "leakage-near", (3, 5, 8), "val")


def test_lookalikes_are_no_copies(tmp_path, ears):
    """Flat images match nothing; 2×2 cells cancel out at 16×16 and differ at 32×32."""
    levels = np.arange(50, 90, dtype=np.uint8)[:, None, None]
    flat = np.tile(levels, (1, SIZE, SIZE))
    flat[:, 5, 5] += 9
    assert summary(tmp_path, flat) == []
    signs = np.random.default_rng(0).choice([-1, 1], (16, 16))
    detail = np.kron(signs, np.kron([[1, -1], [-1, 1]], np.full((2, 2), 3)))[..., None]
    muted = ears[4] // 2 + 64.0
    ears[4], ears[20] = muted + detail, muted - detail
    assert summary(tmp_path, ears) == []


@pytest.mark.parametrize(
    ("code", "advice", "convert"),
    [
        ("unreadable-scale", "rescale them", lambda images: images / 127.5 - 1),
        ("unused-range", "for example by 257", lambda images: images.astype(np.uint16)),
        ("unused-range", "for example by 255", lambda images: images / images.max() / 255),
        ("unused-range", "for example by 25", lambda images: images * (10 / images.max())),
        (
            "over-one",
            "clip(0, 1)",
            lambda images: images * 1.04 / images.max(axis=(1, 2, 3))[:, None, None, None],
        ),
    ],
)
def test_ranges_that_cannot_be_read(tmp_path, ears, code, advice, convert):
    path, val = saved(tmp_path, convert(ears)), saved(tmp_path, as_unit(ears[:10]), "val.npy")
    inspection = inspect_data(path, val)
    first = inspection.problems[0]
    assert (first.severity, first.code, first.indices) == ("error", code, ())
    assert advice in first.message
    assert code == "unused-range" or inspection.leakage.exact + inspection.leakage.near == 10


@pytest.mark.parametrize(
    ("code", "scale", "value"),
    [
        *(("value-range", 255, value) for value in (-0.01, 1.01, 300.0, 1e300)),
        ("value-range", 1, 256),
        ("mixed-scales", 1, None),
    ],
)
def test_single_images_in_another_range(tmp_path, ears, code, scale, value):
    images = ears / scale
    if value is None:
        images[4] /= 255
    else:
        images[4, 1, 1, 1] = value
    errors = [p for p in problems(tmp_path, images) if p.severity == "error"]
    assert [(p.code, p.indices) for p in errors] == [(code, (4,))]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_an_image_is_constant_only_if_every_pixel_is(tmp_path, ears, dtype):
    ears[2], ears[3], ears[4] = 90, 90, (90, 10, 10)
    ears[3, -1, -1, 2] = 91
    ears[5, 0] = 90
    stored = ears if dtype == "uint8" else (ears / 255 * (65535 if dtype == "uint16" else 1))
    report = inspect_data(saved(tmp_path, stored.astype(dtype)))
    (constant,) = [p.indices for p in report.problems if p.code == "constant"]
    assert constant == (2, 4)
    assert report.train.constant == 2


@pytest.mark.parametrize("copy", COPIES)
def test_near_copies(tmp_path, ears, others, monkeypatch, copy):
    monkeypatch.setattr("earteach.inspection.near_duplicates.BLOCK_SIZE", 7)
    ears[20], others[2], others[5] = copy(ears[4]), copy(ears[11]), copy(ears[39])
    duplicates, leaks = problems(tmp_path, ears, others)
    assert duplicates.code == "near-duplicates"
    assert (duplicates.indices, duplicates.like) == ((20,), (4,))
    assert "(20 is like 4)" in duplicates.message
    assert (leaks.code, leaks.indices, leaks.like) == ("leakage-near", (2, 5), (11, 39))


def test_only_an_array_that_cannot_be_opened_is_an_error(tmp_path, ears):
    with pytest.raises(EarTeachError, match="no such file"):
        inspect_data(saved(tmp_path, ears), tmp_path / "val.npy")
    ambiguous = saved(tmp_path, np.zeros((4, 3, 8, 3), np.uint8))
    with pytest.raises(EarTeachError, match="--layout"):
        inspect_data(ambiguous)
    assert inspect_data(ambiguous, layout="nchw").train.width == 3


def test_inspection_imports_neither_torch_nor_albumentations():
    code = "import sys, earteach.inspection; print({'torch', 'albumentations'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def run(latent_dim: int, weight: float = 0.00025, reduction: str = "mean") -> TrainConfig:
    return TrainConfig(
        model=ModelConfig(image_size=32, latent_dim=latent_dim),
        kld=KLDConfig(kld_weight=weight, kld_reduction=reduction),
    )


def flat_with_mirrors(images: np.ndarray) -> np.ndarray:
    """In [0, 1], at 32 pixels a side, in double precision."""
    small = [cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA) for image in images]
    both = np.concatenate([small, np.stack(small)[:, :, ::-1]])
    return both.reshape(len(both), -1) / 255


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_forecast_is_that_of_the_pixels_covariance(tmp_path, ears, others, reduction):
    """PCA's PSNR, and the eigenvalues above weight · D / 2, per latent number under `mean`."""
    rows, unseen = flat_with_mirrors(ears), flat_with_mirrors(others)[: len(others)]
    mean = rows.mean(axis=0)
    _, values, axes = np.linalg.svd(rows - mean, full_matrices=False)
    eigenvalues = values[:20] ** 2 / (len(rows) - 1)
    beta = (eigenvalues[6] * eigenvalues[7]) ** 0.5 * 2 / (3 * 32**2)
    weight = beta * (20 if reduction == "mean" else 1)
    guesses = ((unseen - mean) @ axes[:20].T @ axes[:20] + mean).clip(0, 1)
    psnr = -10 * np.log10(((guesses - unseen) ** 2).mean(axis=1))

    paths = saved(tmp_path, ears), saved(tmp_path, others, "val.npy")
    inspection = inspect_data(*paths, config=run(20, weight, reduction))
    forecast = inspection.forecast
    assert (forecast.image_size, forecast.latent_dim, forecast.components) == (32, 20, 20)
    assert (forecast.psnr_of, forecast.psnr_images) == ("val", len(others))
    assert forecast.psnr == pytest.approx(psnr.mean(), abs=0.01)
    assert forecast.eigenvalues == pytest.approx(eigenvalues, rel=1e-3)
    assert forecast.elbo_beta == pytest.approx(beta * 3 * 32**2 / 2)
    assert forecast.alive_units == 7
    (problem,) = inspection.problems
    assert (problem.severity, problem.code, problem.indices) == ("warning", "kld-weight", ())
    assert "about 7 of 20 latent units will stay alive" in problem.message


def test_the_forecast_is_what_eval_compares_with(tmp_path, ears, monkeypatch):
    from earteach.metrics import eigenears

    path = saved(tmp_path, ears)
    first = inspect_data(path, config=run(8)).forecast
    assert [file.name for file in tmp_path.glob("*.npz")] == ["train.eigenears-8-32px-3c.npz"]
    monkeypatch.delattr(eigenears, "fit")
    assert inspect_data(path, config=run(8)).forecast == first


@pytest.mark.parametrize("spoilt", ["train", "val"])
def test_what_training_would_refuse_has_no_forecast(tmp_path, ears, others, caplog, spoilt):
    arrays = {"train": as_unit(ears), "val": as_unit(others)}
    arrays[spoilt][4] = np.nan
    caplog.set_level("INFO", "earteach")
    paths = (saved(tmp_path, images, f"{name}.npy") for name, images in arrays.items())
    inspection = inspect_data(*paths, config=run(8))
    assert inspection.forecast is None
    assert [p.code for p in inspection.problems] == ["non-finite"]
    assert "no forecast" in caplog.text


def sheet(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_pictures_of_the_arrays_and_their_problems(tmp_path, ears, others):
    ears[20], others[3] = mirrored(ears[4]), mirrored(ears[7])
    ears[10] = cv2.GaussianBlur(ears[10], (0, 0), 4)
    train, val = saved(tmp_path, ears), saved(tmp_path, others, "val.npy")
    out = tmp_path / "out"
    pictures = inspect_data(train, val, out=out, config=run(8), sheet_size=SIZE).pictures
    names = {"train.png", "val.png", "worst.png", "copies.png", "plots.svg"}
    assert {path.name for path in pictures.values()} == names
    assert {path.name for path in out.iterdir()} == names
    tile = SIZE + 2
    assert np.array_equal(sheet(out / "train.png")[2:tile, 2:tile], ears[0])
    assert np.array_equal(sheet(out / "train.png")[-tile:-2, -tile:-2], ears[39])
    large = [cv2.resize(i, (128, 128), interpolation=cv2.INTER_CUBIC) for i in (*ears, *others)]
    worst = with_caption(large[10], "train 10", "blurred")
    assert np.array_equal(sheet(out / "worst.png")[2:-2, 2:-2], worst)
    pairs = [
        with_caption(side_by_side(pair), *caption)
        for pair, *caption in [
            ([large[20], large[4]], "train 20 is like train 4", "near-duplicates"),
            ([large[43], large[7]], "val 3 is like train 7", "leakage-near"),
        ]
    ]
    assert np.array_equal(sheet(out / "copies.png"), side_by_side(pairs))
    assert "Eigenvalues" in pictures["plots"].read_text()


def test_bad_values_are_drawn_and_pictures_of_an_earlier_call_removed(tmp_path, ears):
    ears[20] = mirrored(ears[4])
    gray, out = as_unit(ears[..., 0]), tmp_path / "out"
    gray[0] = np.nan
    inspect_data(saved(tmp_path, gray), out=out, sheet_size=32)
    assert {"worst.png", "copies.png"} < {path.name for path in out.iterdir()}
    drawn = sheet(out / "train.png")
    assert drawn.shape == (5 * 34 + 2, 8 * 34 + 2, 3)
    assert not drawn[2:34, 2:34].any()
    inspect_data(saved(tmp_path, gray[1:19]), out=out)
    assert {"worst.png", "copies.png"}.isdisjoint(path.name for path in out.iterdir())


@pytest.mark.parametrize("strength", ["none", "full"])
def test_augmented_images_are_those_of_the_first_epoch(tmp_path, ears, strength):
    """64 tiles of 40 images; a repeated one is augmented as in the next epoch."""
    path, out = saved(tmp_path, ears), tmp_path / "out"
    inspect_data(path, out=out, augmented=strength, sheet_size=32)
    rows = [round(row) for row in np.linspace(0, 39, 64)]
    repeated = next(index for index in range(1, 64) if rows[index] == rows[index - 1])
    augment = Augmentation(strength, 3, "augmented")
    for index, epoch in ((0, 0), (9, rows[:9].count(rows[9])), (repeated, 1)):
        image = EarArray.open(path).image(rows[index], size=32, channels=3)
        expected, _ = augment(image, derive(0, Purpose.AUGMENTATION, epoch, rows[index]))
        top, left = 2 + 34 * (index // 8), 2 + 34 * (index % 8)
        drawn = sheet(out / "augmented.png")[top : top + 32, left : left + 32]
        assert np.array_equal(drawn, expected)


@pytest.mark.parametrize("name", ["worst.png", "plots.svg"])
def test_a_foreign_file_is_not_replaced(tmp_path, ears, name):
    (tmp_path / name).write_text("mine")
    ears[3] = 0
    with pytest.raises(EarTeachError, match=f"{name}: exists"):
        inspect_data(saved(tmp_path, ears), out=tmp_path)
    assert (tmp_path / name).read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"train.npy", name}
