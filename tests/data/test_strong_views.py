"""Images in other poses and other light."""

import math

import pytest
import torch

from earteach.data import strong_views as module
from earteach.data.strong_views import strong_views
from earteach.randomness import views_generator


def spots(points: torch.Tensor, size: int) -> torch.Tensor:
    """Images `(B, 1, size, size)` of a soft spot at each point `(B, 1, 2)`."""
    at = (torch.arange(size) + 0.5) / size * 2 - 1
    squares = (at - points[:, :, :1]) ** 2 + ((at - points[:, :, 1:]) ** 2).transpose(1, 2)
    return torch.exp(-squares / (2 * 0.06**2))[:, None]


@pytest.fixture
def only_moved(monkeypatch):
    monkeypatch.setattr(module, "_recoloured", lambda x, generator: x)


@pytest.mark.parametrize(("size", "side"), [(64, 64), (256, 128)])
@pytest.mark.usefixtures("only_moved")
def test_points_are_where_the_view_shows_them(size, side):
    points = 0.6 * torch.rand(40, 1, 2, generator=torch.Generator().manual_seed(1)) - 0.3
    views = strong_views(spots(points, size), views_generator(0, 0, 0))
    assert views.images.shape == (40, 1, side, side)
    weight = views.images[:, 0] / views.images[:, 0].sum(dim=(1, 2), keepdim=True)
    at = (torch.arange(side) + 0.5) / side * 2 - 1
    centres = torch.stack([(weight.sum(1) * at).sum(1), (weight.sum(2) * at).sum(1)], dim=1)
    assert (views.points(points)[:, 0] - centres).abs().max() < 0.02
    assert (points[:, 0] - centres).abs().max() > 0.2


@pytest.mark.usefixtures("only_moved")
def test_half_of_the_views_are_mirrored_and_angles_and_scales_are_bounded():
    views = strong_views(torch.rand(400, 1, 16, 16), views_generator(0, 0, 0))
    linear = views.matrices[:, :, :2]
    areas = torch.linalg.det(linear)
    assert 160 < (areas < 0).sum() < 240
    scales = areas.abs().sqrt()
    assert math.exp(-0.2) - 1e-4 <= scales.min() < 0.85
    assert 1.18 < scales.max() <= math.exp(0.2) + 1e-4
    angles = torch.rad2deg(torch.asin((-linear[:, 0, 1] / scales).clamp(-1, 1)))
    assert 20 < angles.abs().max() <= 25.01


@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_images_and_a_function_of_seed_step_and_rank(channels):
    images = torch.rand(6, channels, 32, 32, generator=torch.Generator().manual_seed(2))
    views = strong_views(images, views_generator(1, 2, 3)).images
    assert views.shape == images.shape
    assert 0 <= views.min() < views.max() <= 1
    assert torch.equal(views, strong_views(images, views_generator(1, 2, 3)).images)
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0)):
        assert not torch.equal(views, strong_views(images, views_generator(*other)).images)


def test_colours_change_strongly_and_rectangles_cover_some(monkeypatch):
    monkeypatch.setattr(module, "_NOISE_STD", 0)
    views = strong_views(torch.full((300, 3, 32, 32), 0.5), views_generator(0, 0, 0)).images
    assert views.mean(dim=(1, 2, 3)).std() > 0.05
    covered = views.std(dim=(2, 3)).amax(dim=1) > 1e-3
    assert 0.2 < covered.float().mean() < 0.5
