"""Each problem is planted once in a set that is otherwise clean, and found where it is."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from PIL import Image

from earteach.config import KLDConfig, ModelConfig, TrainConfig
from earteach.data.arrays import EarArray
from earteach.errors import EarTeachError
from earteach.images import beside, labelled
from earteach.inspection import Problem, augmented_sheet, contact_sheet, inspect_data
from earteach.inspection.near_duplicates import best_matches, describe
from earteach.inspection.pixel_values import VALUES_PER_CHUNK, find_reading, rows
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
    second = None if val is None else saved(folder, val, "val.npy")
    return list(inspect_data(saved(folder, train), second).problems)


def found(folder: Path, train: np.ndarray, val: np.ndarray | None = None) -> list[tuple]:
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
    assert (inspection.leakage.exact, inspection.leakage.near) == (0, 0)
    assert (inspection.train.images, inspection.val.images) == (40, 12)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64", "float16"])
@pytest.mark.parametrize("layout", ["nhwc", "nchw", "nhw"])
def test_numbers_are_those_of_the_whole_array(tmp_path, ears, dtype, layout):
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


def test_an_array_of_several_chunks_is_counted_whole(tmp_path, ears):
    many = np.concatenate([ears] * 5)
    assert many.size > VALUES_PER_CHUNK
    many[-1] = 9
    report = inspect_data(saved(tmp_path, many)).train
    assert report.mean == pytest.approx(many.mean(), rel=1e-9)
    assert report.std == pytest.approx(many.std(), rel=1e-9)
    assert (report.images, report.duplicates, report.constant) == (200, 159, 1)


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float16", "float64"])
def test_good_values_are_read_as_the_dataset_reads_them(tmp_path, dtype):
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 65536, (6, 8, 8, 3))
    stored = levels.astype(dtype) if dtype == "uint16" else (levels / 65535).astype(dtype)
    array = EarArray.open(saved(tmp_path, stored))
    ours = find_reading(array).rgb(rows(array, slice(0, 6)))
    assert np.array_equal(ours, np.stack([array.image_uint8(row) for row in range(6)]))


def test_statistics_leave_out_what_is_not_finite(tmp_path, ears):
    images = as_unit(ears)
    images[3, 5, 5, 1] = np.nan
    images[7, 0, 0, 0] = np.inf
    images[9, 0, 0, 0] = -np.inf
    inspection = inspect_data(saved(tmp_path, images))
    known = images[np.isfinite(images)].astype(np.float64)
    report = inspection.train
    assert (report.min, report.max) == (known.min(), known.max())
    assert report.mean == pytest.approx(known.mean(), rel=1e-9)
    assert report.std == pytest.approx(known.std(), rel=1e-9)
    assert report.non_finite == 3
    assert [(p.code, p.indices) for p in inspection.problems] == [("non-finite", (3, 7, 9))]


def test_an_array_without_a_finite_value_has_no_statistics(tmp_path):
    report = inspect_data(saved(tmp_path, np.full((2, 8, 8, 3), np.nan))).train
    assert (report.min, report.max, report.mean, report.std) == (None, None, None, None)
    assert report.channel_means is None
    assert report.channel_stds is None
    assert (report.non_finite, report.constant, report.duplicates) == (2, 0, 1)


def test_absurd_values_are_a_finding_and_no_crash(tmp_path, ears):
    images = ears / 255.0
    images[0, 0, 0, 0] = 1e300
    assert found(tmp_path, images) == [("error", "value-range", (0,), "train")]


@pytest.mark.parametrize("value", [-0.01, 1.01, 300.0])
def test_values_out_of_range_in_single_images(tmp_path, ears, value):
    images = as_unit(ears)
    images[4, 1, 1, 1] = value
    assert found(tmp_path, images) == [("error", "value-range", (4,), "train")]


def test_an_image_of_another_scale(tmp_path, ears):
    images = ears.astype(np.float32)
    images[6] /= 255
    images[8, 0, 0, 0] = 256
    codes = {p.code: p.indices for p in problems(tmp_path, images) if p.severity == "error"}
    assert codes == {"mixed-scales": (6,), "value-range": (8,)}


def test_an_array_in_no_readable_range(tmp_path, ears):
    train, val = as_unit(ears) * 2 - 1, as_unit(ears[:10])
    path = saved(tmp_path, train)
    inspection = inspect_data(path, saved(tmp_path, val, "val.npy"))
    unreadable = inspection.problems[0]
    assert (unreadable.severity, unreadable.code) == ("error", "unreadable-scale")
    assert unreadable.indices == ()
    assert "rescale" in unreadable.message
    # Likeness does not depend on the scale.
    assert inspection.leakage.exact + inspection.leakage.near == 10


def test_eight_bit_values_in_sixteen_bits(tmp_path, ears):
    first = problems(tmp_path, ears.astype(np.uint16))[0]
    assert (first.severity, first.code) == ("error", "unused-range")
    assert "multiply them, for example by 257" in first.message


def test_constant_images(tmp_path, ears):
    ears[2] = 0
    ears[5] = (200, 10, 10)
    assert found(tmp_path, ears) == [("error", "constant", (2, 5), "train")]
    assert inspect_data(tmp_path / "train.npy").train.constant == 2


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


def test_the_deviation_of_a_nearly_constant_array_keeps_its_digits(tmp_path):
    images = np.full((4, 300, 300, 3), 254, np.uint8)
    images[:, 7, 7] = 255
    report = inspect_data(saved(tmp_path, images)).train
    assert report.std == pytest.approx(np.sqrt(1 / 90000 - 1 / 90000**2), rel=1e-9)


def test_nearly_black_and_nearly_white(tmp_path, ears):
    ears[1] = ears[1] // 20
    ears[1, :32] = 0
    ears[3] = 255 - ears[3] // 20
    assert found(tmp_path, ears) == [
        ("warning", "nearly-black", (1,), "train"),
        ("warning", "nearly-white", (3,), "train"),
    ]


def test_clipped_exposure(tmp_path, ears):
    ears[7, :24] = 255
    assert found(tmp_path, ears) == [("warning", "clipped", (7,), "train")]


def test_blurred_images(tmp_path, ears):
    for row in (10, 11):
        ears[row] = cv2.GaussianBlur(ears[row], (0, 0), 4)
    assert found(tmp_path, ears) == [("warning", "blurred", (10, 11), "train")]


def test_a_dim_image_is_not_a_blurred_one(tmp_path, ears):
    ears[10] = ears[10] // 8 + 100
    assert found(tmp_path, ears) == []


def letterboxed(image: np.ndarray, colour: int, quality: int = 90) -> np.ndarray:
    """As it comes from a video: bars above and below, then JPEG at a larger size."""
    large = cv2.resize(image, (256, 256), interpolation=cv2.INTER_CUBIC)
    large[:50], large[-44:] = colour, colour
    coded = cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.resize(cv2.imdecode(coded, 1), (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def test_letterboxed_images(tmp_path, ears):
    ears[3], ears[9] = letterboxed(ears[3], 0), letterboxed(ears[9], 120, quality=60)
    ears[12] = letterboxed(ears[12].transpose(1, 0, 2), 255).transpose(1, 0, 2)
    assert found(tmp_path, ears) == [("warning", "letterboxed", (3, 9, 12), "train")]


def test_a_plain_background_or_a_single_bar_is_no_letterbox(tmp_path, ears):
    outside = np.hypot(*(np.mgrid[:SIZE, :SIZE] - SIZE / 2)) > 26
    ears[3][outside] = 20
    ears[5][:12] = 30
    ears[6][:6], ears[6][-6:] = 30, 90
    assert found(tmp_path, ears) == []


def test_exact_duplicates(tmp_path, ears):
    ears[20] = ears[30] = ears[4]
    assert found(tmp_path, ears) == [("warning", "duplicates", (20, 30), "train")]
    assert inspect_data(tmp_path / "train.npy").train.duplicates == 2


@pytest.mark.parametrize("copy", COPIES)
def test_near_duplicates(tmp_path, ears, copy):
    ears[20] = copy(ears[4])
    listed = problems(tmp_path, ears)
    assert [(p.code, p.indices) for p in listed] == [("near-duplicates", (20,))]
    assert "(20 is like 4)" in listed[0].message
    assert listed[0].like == (4,)


def test_an_exact_leak_across_layouts_and_types(tmp_path, ears, others):
    others[3], others[8] = ears[11], ears[0]
    train = as_unit(ears).transpose(0, 3, 1, 2)
    expected = [
        ("error", "leakage-exact", (3, 8), "val"),
        ("warning", "scale-mismatch", (), "val"),
    ]
    assert found(tmp_path, train, others) == expected


def test_a_gray_leak_in_another_number_of_channels(tmp_path, ears, others):
    gray = ears[..., 0]
    val = np.repeat(np.concatenate([gray[5:6], others[..., 0]])[..., None], 3, axis=3)
    codes = {p.code: p.indices for p in problems(tmp_path, gray, val)}
    assert codes == {"leakage-exact": (0,), "channels-mismatch": (), "gray-as-rgb": ()}


@pytest.mark.parametrize("copy", COPIES)
def test_near_leaks(tmp_path, ears, others, copy):
    others[2], others[5] = copy(ears[11]), copy(ears[39])
    assert found(tmp_path, ears, others) == [("warning", "leakage-near", (2, 5), "val")]
    inspection = inspect_data(tmp_path / "train.npy", tmp_path / "val.npy")
    assert (inspection.leakage.exact, inspection.leakage.near) == (0, 2)
    assert inspection.problems[0].like == (11, 39)


def test_a_near_leak_at_another_size(tmp_path, ears, others):
    others[2] = ears[11]
    val = np.stack([cv2.resize(image, (100, 90)) for image in others])
    codes = {p.code: p.indices for p in problems(tmp_path, ears, val)}
    assert codes == {"leakage-near": (2,), "size-mismatch": ()}


def test_an_exact_leak_is_not_counted_as_near_too(tmp_path, ears, others):
    others[2], ears[9] = ears[11], mirrored(ears[11])
    inspection = inspect_data(saved(tmp_path, ears), saved(tmp_path, others, "val.npy"))
    assert (inspection.leakage.exact, inspection.leakage.near) == (1, 0)


def test_flat_images_are_not_taken_for_copies(tmp_path):
    levels = np.arange(50, 90, dtype=np.uint8)[:, None, None]
    flat = np.tile(levels, (1, SIZE, SIZE))
    flat[:, 5, 5] += 9
    assert found(tmp_path, flat) == []


def test_what_is_alike_only_in_coarse_outline_is_no_copy(tmp_path, ears):
    """Cells of 2×2 pixels cancel out at 16×16 and are plain to see at 32×32."""
    signs = np.random.default_rng(0).choice([-1, 1], (16, 16))
    detail = np.kron(signs, np.kron([[1, -1], [-1, 1]], np.full((2, 2), 3)))[..., None]
    muted = ears[4] // 2 + 64.0
    ears[4], ears[20] = muted + detail, muted - detail
    assert found(tmp_path, ears) == []


def test_gray_stored_as_colour(tmp_path, ears):
    gray = np.repeat(ears[..., :1], 3, axis=3)
    assert found(tmp_path, gray) == [("warning", "gray-as-rgb", (), "train")]


def test_blue_and_red_swapped(tmp_path, ears):
    assert found(tmp_path, ears[..., ::-1]) == [("warning", "channels-swapped", (), "train")]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [("error", "too-few-images", (), "train")]),
        (2, [("warning", "few-images", (), "train")]),
        (31, [("warning", "few-images", (), "train")]),
        (32, []),
    ],
)
def test_too_few_images(tmp_path, ears, count, expected):
    assert found(tmp_path, ears[:count]) == expected


def test_arrays_that_do_not_match(tmp_path, ears, others):
    val = others[:, ::2, ::2, 0].astype(np.uint16) * 257
    assert found(tmp_path, ears, val) == [
        ("warning", "size-mismatch", (), "val"),
        ("warning", "channels-mismatch", (), "val"),
        ("warning", "scale-mismatch", (), "val"),
    ]


def test_problems_of_the_validation_array_say_so_and_errors_come_first(tmp_path, ears, others):
    ears[20] = ears[4]
    others[6] = 77
    assert found(tmp_path, ears, others) == [
        ("error", "constant", (6,), "val"),
        ("warning", "duplicates", (20,), "train"),
    ]


def test_each_message_is_one_line_that_names_the_file_and_a_next_step(tmp_path, ears, others):
    others[1], others[2], others[3] = ears[1], mirrored(ears[2]), 0
    ears[20:28] = ears[4]
    listed = problems(tmp_path, ears, others)
    assert {p.code for p in listed} == {"constant", "leakage-exact", "leakage-near", "duplicates"}
    for problem in listed:
        assert problem.message.startswith(str(tmp_path / f"{problem.array}.npy"))
        assert "\n" not in problem.message
        assert "remove" in problem.message
    duplicates = next(p for p in listed if p.code == "duplicates")
    assert "images 20, 21, 22, 23, 24 and 3 more" in duplicates.message


def test_only_an_array_that_cannot_be_opened_is_an_error(tmp_path, ears):
    with pytest.raises(EarTeachError, match="no such file"):
        inspect_data(saved(tmp_path, ears), tmp_path / "val.npy")
    ambiguous = saved(tmp_path, np.zeros((4, 3, 8, 3), np.uint8))
    with pytest.raises(EarTeachError, match="--layout"):
        inspect_data(ambiguous)
    assert inspect_data(ambiguous, layout="nchw").train.width == 3


def test_best_matches_agree_with_plain_correlation(drawn):
    luma = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in drawn])
    pictures = np.stack([cv2.resize(p, (16, 16)) for p in luma]).astype(np.float32)
    sharp = np.stack([p - cv2.GaussianBlur(p, (13, 13), 1.5, borderType=2) for p in pictures])
    both = [
        np.corrcoef(sharp.reshape(52, -1), flipped.reshape(52, -1))[:52, 52:]
        for flipped in (sharp, sharp[:, :, ::-1])
    ]
    best = np.tril(np.maximum(*both), -1)
    scores, places = best_matches(*[describe(pictures, 1.5)] * 2, earlier=True)
    assert scores == pytest.approx(best.max(axis=1), abs=1e-4)
    assert np.array_equal(places[1:], best.argmax(axis=1)[1:])


def test_matches_are_found_across_blocks(monkeypatch, drawn):
    monkeypatch.setattr("earteach.inspection.near_duplicates.BLOCK", 7)
    pictures = np.stack([cv2.resize(i[..., 1], (16, 16)) for i in drawn]).astype(np.float32)
    pictures[50] = pictures[3, :, ::-1]
    described = describe(pictures, 1.5)
    scores, places = best_matches(described, described, earlier=True)
    assert (places[50], scores[50]) == (3, pytest.approx(1, abs=1e-5))
    assert scores[:50].max() < 0.93
    assert best_matches(described, described)[1].tolist()[3] in (3, 50)


def test_inspection_imports_neither_torch_nor_albumentations():
    code = "import sys, earteach.inspection; print({'torch', 'albumentations'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_contact_sheet_shows_the_chosen_images(tmp_path, ears):
    sheet = contact_sheet(saved(tmp_path, ears), indices=[3, 12])
    assert sheet.shape == (SIZE + 4, 2 * (SIZE + 2) + 2, 3)
    assert np.array_equal(sheet[2 : 2 + SIZE, 2 : 2 + SIZE], ears[3])
    assert np.array_equal(sheet[2 : 2 + SIZE, SIZE + 4 : -2], ears[12])


def test_a_contact_sheet_spreads_over_the_array_and_shows_bad_values(tmp_path, ears):
    gray = as_unit(ears[..., 0])
    gray[0] = np.nan
    sheet = contact_sheet(saved(tmp_path, gray), size=32, count=16)
    assert sheet.shape == (2 * 34 + 2, 8 * 34 + 2, 3)
    assert not sheet[2:34, 2:34].any()
    last = cv2.resize(ears[39, ..., 0], (32, 32), interpolation=cv2.INTER_AREA)
    assert np.array_equal(sheet[-34:-2, -34:-2, 1], last)


@pytest.mark.parametrize("indices", [[], [40], [-1]])
def test_a_contact_sheet_of_images_that_are_not_there(tmp_path, ears, indices):
    with pytest.raises(EarTeachError):
        contact_sheet(saved(tmp_path, ears), indices=indices)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("strength", ["light", "full"])
def test_an_augmented_sheet_shows_what_the_first_epoch_sees(tmp_path, ears, channels, strength):
    from earteach.data.augmentation import Augmentation
    from earteach.randomness import Purpose, derive

    path = saved(tmp_path, ears)
    shown = {"size": 48, "channels": channels, "count": 40, "seed": 5}
    sheet = augmented_sheet(path, strength=strength, **shown)
    assert sheet.shape == (5 * 50 + 2, 8 * 50 + 2, 3)
    image = EarArray.open(path).image(9, size=48, channels=channels)
    seen, _ = Augmentation(strength, channels, "augmented")(
        image, derive(5, Purpose.AUGMENTATION, 0, 9)
    )
    assert np.array_equal(sheet[52:100, 52:100], np.broadcast_to(seen, (48, 48, 3)))


def test_an_augmented_sheet_repeats_rows_with_other_draws(tmp_path, ears):
    path = saved(tmp_path, ears[:1])
    sheet = augmented_sheet(path, size=32, count=8)
    tiles = {sheet[2:34, left : left + 32].tobytes() for left in range(2, 270, 34)}
    assert len(tiles) > 4
    assert np.array_equal(sheet, augmented_sheet(path, size=32, count=8))
    assert not np.array_equal(sheet, augmented_sheet(path, size=32, count=8, seed=1))


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
    wanted = (eigenvalues[6] * eigenvalues[7]) ** 0.5 * 2 / (3 * 32**2)
    weight = wanted * (20 if reduction == "mean" else 1)
    guesses = ((unseen - mean) @ axes[:20].T @ axes[:20] + mean).clip(0, 1)
    psnr = -10 * np.log10(((guesses - unseen) ** 2).mean(axis=1))

    paths = saved(tmp_path, ears), saved(tmp_path, others, "val.npy")
    inspection = inspect_data(*paths, config=run(20, weight, reduction))
    seen = inspection.forecast
    assert (seen.image_size, seen.latent_dim, seen.components) == (32, 20, 20)
    assert (seen.psnr_of, seen.psnr_images) == ("val", len(others))
    assert seen.psnr == pytest.approx(psnr.mean(), abs=0.01)
    assert seen.eigenvalues == pytest.approx(eigenvalues, rel=1e-3)
    assert seen.elbo_beta == pytest.approx(wanted * 3 * 32**2 / 2)
    assert seen.alive_units == 7
    (problem,) = inspection.problems
    assert (problem.severity, problem.code, problem.indices) == ("warning", "kld-weight", ())
    assert "about 7 of 20 latent units will stay alive" in problem.message
    (option, value) = re.search(r"(--kld-[a-z]+) ([^\s,]+)", problem.message).groups()
    changed = {"weight": weight, "reduction": reduction}
    changed[option.removeprefix("--kld-")] = float(value) if option == "--kld-weight" else value
    cured = inspect_data(*paths, config=run(20, **changed))
    assert (cured.forecast.alive_units, cured.problems) == (20, ())


def test_the_forecast_of_one_array_says_whose_psnr_it_is(tmp_path, ears):
    seen = inspect_data(saved(tmp_path, ears), config=run(64)).forecast
    assert (seen.psnr_of, seen.psnr_images, seen.components) == ("train", 40, 39)
    assert seen.alive_units == 64


def test_the_forecast_is_what_eval_compares_with(tmp_path, ears, monkeypatch):
    from earteach.metrics import eigenears

    path = saved(tmp_path, ears)
    first = inspect_data(path, config=run(8)).forecast
    assert [file.name for file in tmp_path.glob("*.npz")] == ["train.eigenears-8-32px-3c.npz"]
    monkeypatch.delattr(eigenears, "fit")
    assert inspect_data(path, config=run(8)).forecast == first
    kept = eigenears.eigenears(EarArray.open(path), components=8, size=32, channels=3)
    assert first.eigenvalues == pytest.approx(kept.variances)


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


def test_pictures_of_what_was_found(tmp_path, ears, others):
    ears[20], others[3] = mirrored(ears[4]), mirrored(ears[7])
    ears[10] = cv2.GaussianBlur(ears[10], (0, 0), 4)
    train, val = saved(tmp_path, ears), saved(tmp_path, others, "val.npy")
    out = tmp_path / "out"
    pictures = inspect_data(train, val, out=out, config=run(8)).pictures
    names = {"train.png", "val.png", "worst.png", "copies.png", "plots.svg"}
    assert {path.name for path in pictures.values()} == names
    assert {path.name for path in out.iterdir()} == names
    large = [cv2.resize(i, (128, 128), interpolation=cv2.INTER_CUBIC) for i in (*ears, *others)]
    worst = np.asarray(Image.open(out / "worst.png"))
    tile = labelled(large[10], "train 10", "blurred")
    assert np.array_equal(worst[2:-2, 2:-2], tile)
    copies = np.asarray(Image.open(out / "copies.png"))
    pairs = [
        labelled(beside([large[20], large[4]]), "train 20 is like train 4", "near-duplicates"),
        labelled(beside([large[43], large[7]]), "val 3 is like train 7", "leakage-near"),
    ]
    assert np.array_equal(copies, beside(pairs))


def test_pictures_of_what_is_no_longer_found_are_removed(tmp_path, ears):
    spoilt = ears.copy()
    spoilt[20], spoilt[10] = mirrored(ears[4]), 0
    out = tmp_path / "out"
    inspect_data(saved(tmp_path, spoilt), out=out)
    assert {"worst.png", "copies.png"} < {path.name for path in out.iterdir()}
    inspect_data(saved(tmp_path, ears), out=out)
    assert {path.name for path in out.iterdir()} == {"train.png", "plots.svg"}


@pytest.mark.parametrize("name", ["worst.png", "plots.svg", "train.png"])
def test_a_foreign_file_is_not_replaced(tmp_path, ears, name):
    (tmp_path / name).write_text("mine")
    ears[3] = 0
    with pytest.raises(EarTeachError, match=f"{name}: exists"):
        inspect_data(saved(tmp_path, ears), out=tmp_path)
    assert (tmp_path / name).read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"train.npy", name}


def test_plots_count_the_images(tmp_path, ears, others):
    """Read back from the drawing: the shares of images add up to 100 %."""
    train, val = saved(tmp_path, ears), saved(tmp_path, others, "val.npy")
    plots = inspect_data(train, val, out=tmp_path / "out", config=run(8)).pictures["plots"]
    drawing = ElementTree.parse(plots).getroot()
    panels = [g for g in drawing.findall(".//{*}g") if re.fullmatch(r"axes_\d", g.get("id", ""))]
    assert len(panels) == 3
    for panel in panels[:2]:
        _, axis = [
            g for g in panel.findall(".//{*}g") if g.get("id", "").startswith("matplotlib.axis")
        ]
        heights = [float(tick.get("y")) for tick in axis.findall(".//{*}use")]
        labels = [float(text.text) for text in axis.findall(".//{*}text")]
        slope, start = np.polyfit(heights, labels, 1)
        for colour in ("#4285cc", "#d9722e"):  # training and validation
            line = next(
                p for p in panel.findall(".//{*}path") if f"stroke: {colour}" in p.get("style", "")
            )
            points = re.findall(r"[ML] \S+ (\S+)", line.get("d"))
            assert sum(slope * float(y) + start for y in points) == pytest.approx(100, abs=2)


def test_floats_a_little_over_one_are_an_error_as_in_training(tmp_path, ears):
    """As where images were enlarged by cubic interpolation and not clipped."""
    images = as_unit(ears) * 1.04 / as_unit(ears).max(axis=(1, 2, 3), keepdims=True)
    errors = [p for p in problems(tmp_path, images) if p.severity == "error"]
    assert [(p.code, p.indices) for p in errors] == [("over-one", ())]
    assert "up to 1.04" in errors[0].message
    assert "array.clip(0, 1)" in errors[0].message
    with pytest.raises(EarTeachError, match="a little over 1"):
        _ = EarArray.open(tmp_path / "train.npy").scale


def test_the_sheet_of_augmented_images_has_the_strength_that_is_asked_for(tmp_path, ears):
    path = saved(tmp_path, ears)
    for strength in ("none", "light", "full"):
        out = tmp_path / strength
        inspect_data(path, out=out, augmented=strength, sheet_size=32)
        sheet = augmented_sheet(path, size=32, strength=strength)
        assert np.array_equal(np.asarray(Image.open(out / "augmented.png")), sheet)
    assert not np.array_equal(sheet, augmented_sheet(path, size=32))
