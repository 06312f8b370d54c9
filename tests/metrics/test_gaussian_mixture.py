"""The mixture of codes: its axes, its moments, the number of its components, and what is drawn."""

from itertools import islice

import numpy as np
import pytest
import torch

from earteach.metrics import gaussian_mixture as module
from earteach.metrics.gaussian_mixture import CodeMixture, fit_mixture


def codes_in_groups(number: int, groups: int, seed: int = 0) -> np.ndarray:
    """Codes of five numbers in clusters far apart, float32 `(number, 5)`."""
    rng = np.random.default_rng(seed)
    centres = 6 * np.random.default_rng(7).normal(size=(groups, 5))
    mixing = rng.normal(size=(5, 5))
    shares = 1.3 ** np.arange(groups) / (1.3 ** np.arange(groups)).sum()
    chosen = rng.choice(groups, size=number, p=shares)
    return (centres[chosen] + 0.5 * rng.normal(size=(number, 5)) @ mixing).astype(np.float32)


def pictures_of(codes: np.ndarray, pixels: int = 12) -> np.ndarray:
    """Pictures on which every number of a code has its own effect."""
    effect = np.random.default_rng(3).normal(size=(codes.shape[1], pixels))
    return (codes @ effect).astype(np.float32)


def fitted(codes: np.ndarray, *, has_side: bool = False) -> CodeMixture:
    return fit_mixture(codes, pictures_of(codes), has_side=has_side)


def draw(mixture: CodeMixture, number: int, seed: int) -> torch.Tensor:
    return torch.stack(list(islice(mixture.codes(seed), number)))


def moments(mixture: CodeMixture) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of all codes that could be drawn, from the mixture's parameters."""
    weights, means = mixture.weights.astype(float), mixture.means.astype(float)
    mean = weights @ means
    covariance = -np.outer(mean, mean)
    for weight, centre, factor in zip(weights, means, mixture.factors, strict=True):
        covariance += weight * (factor @ factor.T + np.outer(centre, centre))
    axes = mixture.axes.astype(float)
    return mixture.mean + mean @ axes, axes.T @ covariance @ axes


@pytest.mark.parametrize(("number", "groups"), [(100, 1), (400, 3)])
def test_mean_and_covariance_are_those_of_the_codes(number, groups):
    codes = codes_in_groups(number, groups)
    mean, covariance = moments(fitted(codes))
    scale = np.abs(np.cov(codes.T, bias=True)).max()
    np.testing.assert_allclose(mean, codes.mean(axis=0), atol=0.02 * np.sqrt(scale))
    np.testing.assert_allclose(covariance, np.cov(codes.T, bias=True), atol=0.02 * scale)


@pytest.mark.parametrize("temperature", [0.25, 2.0])
def test_the_temperature_multiplies_the_distance_from_the_means(temperature):
    mixture = fitted(codes_in_groups(400, 3))

    def drawn(temperature: float) -> np.ndarray:
        codes = torch.stack(list(islice(mixture.codes(5, temperature), 20))).double().numpy()
        return (codes - mixture.mean) @ np.linalg.pinv(mixture.axes.astype(float))

    centres = drawn(1e-9)
    assert np.abs(centres[:, None] - mixture.means[:, : centres.shape[1]]).min(axis=1).max() < 1e-4
    np.testing.assert_allclose(
        drawn(temperature) - centres, temperature * (drawn(1.0) - centres), atol=1e-4
    )


@pytest.mark.parametrize(("groups", "components"), [(1, 1), (2, 2), (4, 4)])
def test_the_number_of_components_is_that_of_the_groups(groups, components):
    mixture = fitted(codes_in_groups(800, groups))
    assert mixture.components == components
    assert mixture.weights.sum() == pytest.approx(1, abs=1e-5)


def test_axes_are_ordered_by_their_effect_on_the_images():
    """A dimension that varies most of all, but has no visible effect, comes last."""
    rng = np.random.default_rng(0)
    independent, _ = np.linalg.qr(rng.normal(size=(500, 4)))
    independent -= independent.mean(axis=0)
    codes = independent / independent.std(axis=0) * np.array([50, 1, 0.1, 2])
    effects, _ = np.linalg.qr(rng.normal(size=(9, 4)))
    # The effect of one standard deviation of each dimension on the images.
    strengths = np.array([0.0, 2.0, 5.0, 1.0])
    pictures = codes / codes.std(axis=0) * strengths @ effects.T
    mixture = fit_mixture(codes, pictures, has_side=False)
    # The axes are the dimensions, by effect: the third, the second, the last.
    lengths = codes.std(axis=0)[[2, 1, 3, 0]]
    along = np.abs(mixture.axes[:, [2, 1, 3, 0]]) / lengths
    np.testing.assert_allclose(along, np.eye(4), atol=0.15)
    np.testing.assert_allclose(mixture.shares, [25 / 30, 4 / 30, 1 / 30, 0], atol=0.02)


def test_drawn_codes_have_the_moments_and_the_groups():
    codes = codes_in_groups(800, 4)
    drawn = draw(fitted(codes), 4000, seed=1)
    assert drawn.dtype == torch.float32
    assert drawn.shape == (4000, 5)
    scale = np.abs(np.cov(codes.T)).max()
    np.testing.assert_allclose(np.cov(drawn.numpy().T), np.cov(codes.T), atol=0.1 * scale)
    # Every drawn code lies in a group, as near to a real one as those to each other.
    apart = torch.cdist(drawn, torch.from_numpy(codes)).min(dim=1).values
    among = torch.cdist(torch.from_numpy(codes), torch.from_numpy(codes)).fill_diagonal_(np.inf)
    assert apart.max() < 3 * among.min(dim=1).values.max()


def test_details_are_those_of_the_training_images_most_like_the_ear(monkeypatch):
    """Three groups of codes in a row; a second axis, which is hardly seen, is high in the middle one."""
    monkeypatch.setattr(module, "_MAX_CORRELATED", 1)
    rng = np.random.default_rng(0)
    group = rng.choice(3, size=(3000, 1), p=[0.3, 0.4, 0.3])
    seen = 10 * group + 0.1 * rng.normal(size=(3000, 1))
    detail = np.where(group == 1, 8.0, -3.0) + 0.2 * rng.normal(size=seen.shape)
    codes = np.concatenate([seen, detail], axis=1)
    mixture = fit_mixture(codes, seen @ np.ones((1, 3)), has_side=False)
    drawn = draw(mixture, 2000, seed=0).numpy()
    inside = np.abs(drawn[:, 0] - 10) < 5
    assert inside.mean() == pytest.approx(0.4, abs=0.04)
    np.testing.assert_allclose(drawn[inside, 1], 8, atol=0.9)
    np.testing.assert_allclose(drawn[~inside, 1], -3, atol=0.9)


def test_details_are_a_mix_of_two_and_as_long_as_they_are(monkeypatch):
    """Three groups in two hidden axes: details lie in one or between two, and are no shorter."""
    monkeypatch.setattr(module, "_MAX_CORRELATED", 1)
    rng = np.random.default_rng(1)
    seen = rng.normal(size=(200, 1))
    angle = rng.choice([0.0, 2 * np.pi / 3, 4 * np.pi / 3], size=(200, 1))
    codes = np.concatenate([seen, 5 * np.cos(angle), 5 * np.sin(angle)], axis=1)
    codes -= codes.mean(axis=0)
    mixture = fit_mixture(codes, seen @ np.ones((1, 3)), has_side=False)
    scores = mixture.scores[:, 1:].astype(float)
    drawn = draw(mixture, 500, seed=0).numpy() - mixture.mean
    details = drawn @ np.linalg.pinv(mixture.axes)[:, 1:]
    lengths = np.linalg.norm(scores, axis=1)
    assert np.linalg.norm(details, axis=1).min() > 0.9 * lengths.min()
    to_group = np.linalg.norm(details[:, None] - scores[None], axis=2).min(axis=1)
    assert (to_group < 0.05).sum() > 100
    assert (to_group > 0.2).sum() > 100


def test_details_come_from_the_third_and_the_fourth_most_like_the_ear(monkeypatch):
    monkeypatch.setattr(module, "_MAX_CORRELATED", 1)
    rng = np.random.default_rng(2)
    seen = rng.normal(size=(100, 1))
    codes = np.concatenate([seen, rng.normal(size=(100, 3))], axis=1)
    mixture = fit_mixture(codes, seen @ np.ones((1, 3)), has_side=False)
    scores = mixture.scores.astype(float)
    for code in draw(mixture, 20, seed=0).numpy():
        first, *detail = (code - mixture.mean) @ np.linalg.pinv(mixture.axes)
        chosen = np.argsort(np.abs(scores[:, 0] - first))[2:4]
        parts, *_ = np.linalg.lstsq(scores[chosen, 1:].T, np.array(detail), rcond=None)
        np.testing.assert_allclose(parts @ scores[chosen, 1:], detail, atol=0.01)
        assert (parts > 0).all()
    half = torch.stack(list(islice(mixture.codes(0, detail=0.5), 1)))
    of_half = ((half.numpy() - mixture.mean) @ np.linalg.pinv(mixture.axes))[0]
    whole = ((draw(mixture, 1, seed=0).numpy() - mixture.mean) @ np.linalg.pinv(mixture.axes))[0]
    np.testing.assert_allclose(of_half, whole * [1, 0.5, 0.5, 0.5], atol=1e-4)


def test_blends_lie_between_an_image_and_one_of_those_most_like_it(monkeypatch):
    """The smaller part, along the axes that are hardly seen, is at least 0.3 of the whole."""
    monkeypatch.setattr(module, "_MAX_CORRELATED", 1)
    monkeypatch.setattr(module, "_BLENDED_WITH", 2)
    rng = np.random.default_rng(3)
    seen = 5 + rng.random(size=(60, 1))
    codes = np.concatenate([seen, rng.normal(size=(60, 3))], axis=1)
    mixture = fit_mixture(codes, seen @ np.ones((1, 3)), has_side=False)
    scores = mixture.scores.astype(float)
    apart = np.abs(scores[:, :1] - scores[:, 0])
    pairs = [[first, other] for first in range(60) for other in np.argsort(apart[first])[1:3]]
    for code in islice(mixture.blends(0), 20):
        place, *detail = (code.numpy() - mixture.mean) @ np.linalg.pinv(mixture.axes)
        fits = []
        for pair in pairs:
            parts, *_ = np.linalg.lstsq(scores[pair, 1:].T, np.array(detail), rcond=None)
            error = np.abs(parts @ scores[pair, 1:] - detail).max()
            fits.append((error, parts.min() / parts.sum(), np.abs(scores[pair, 0] - place).max()))
        error, smaller_part, distance = min(fits)
        assert error < 0.01
        assert 0.29 < smaller_part <= 0.5
        assert distance < 0.5


def test_the_seed_decides_and_fewer_codes_are_the_first_of_more():
    mixture = fitted(codes_in_groups(200, 2))
    more = draw(mixture, 9, seed=5)
    assert torch.equal(draw(mixture, 4, seed=5), more[:4])
    assert not torch.isclose(draw(mixture, 9, seed=6), more).all(dim=1).any()
    assert len(more.unique(dim=0)) == 9


@pytest.mark.parametrize(("share", "central"), [(0.8, 1.0), (0.3, -1.0), (0.0, -1.0)])
def test_sides_are_drawn_in_their_proportions(share, central):
    codes = codes_in_groups(300, 2)
    sides = np.where(np.arange(300) < 300 * share, 1, -1).astype(np.float32)
    mixture = fitted(np.concatenate([codes, sides[:, None]], axis=1), has_side=True)
    assert mixture.has_side
    drawn = draw(mixture, 3000, seed=0)
    assert set(drawn[:, -1].tolist()) <= {1.0, -1.0}
    assert (drawn[:, -1] > 0).float().mean() == pytest.approx(share, abs=0.03)
    np.testing.assert_allclose(drawn[:, :-1].mean(0), codes.mean(0), atol=0.6)
    assert mixture.mean_code()[-1] == central
    np.testing.assert_allclose(mixture.mean_code()[:-1], codes.mean(0), atol=1e-4)
    assert (mixture.axes[:, -1] == 0).all()
    assert len(mixture.axes) == 5


@pytest.mark.parametrize("has_side", [False, True])
@pytest.mark.parametrize("number", [1, 2, 17])
def test_a_few_codes_are_enough(number, has_side):
    codes = codes_in_groups(number, 1)
    codes[:, -1] = 1
    mixture = fitted(codes, has_side=has_side)
    assert len(mixture.axes) == min(number - 1, 4)
    drawn = draw(mixture, 50, seed=0)
    assert drawn.isfinite().all()
    # No farther from the mean than normal codes of that spread are.
    far = np.abs(drawn.numpy() - codes.mean(axis=0))
    assert (far <= 8 * codes.std(axis=0) + 1e-4).all()


def test_constant_dimensions_and_repeated_images_are_harmless():
    codes = np.repeat(codes_in_groups(10, 2), 40, axis=0)
    codes[:, 2] = 0.25
    mixture = fitted(codes)
    drawn = draw(mixture, 100, seed=0)
    assert drawn.isfinite().all()
    np.testing.assert_allclose(drawn[:, 2], 0.25, atol=1e-4)
