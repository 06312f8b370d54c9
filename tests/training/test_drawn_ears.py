"""Drawn ears in training: their landmarks, and that a step decides which ears it gets."""

import numpy as np
import pytest
import torch

from earteach.synthetic.drawn_ear import DrawnEar
from earteach.training import drawn_ears
from earteach.training.drawn_ears import DrawnEars

SIZE = 64


class Network:
    """A network, as far as the size and the device of its images go."""

    image_size, in_channels = SIZE, 3

    def parameters(self):
        yield torch.zeros(1)


def found(ears: DrawnEars, step: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return ears.views(Network(), step, torch.Generator().manual_seed(seed))


def test_landmarks_follow_their_places_into_the_views(monkeypatch):
    """Each ear is a soft spot at its landmark."""
    monkeypatch.setattr("earteach.data.strong_views._recoloured", lambda x, generator: x)
    at = (np.arange(SIZE) + 0.5) / SIZE

    def spot(seed: int, index: int, size: int) -> DrawnEar:
        x, y = np.random.default_rng(index).uniform(0.4, 0.6, 2).astype(np.float32)
        gauss = np.exp(-((at - x) ** 2 + (at[:, None] - y) ** 2) / (2 * 0.03**2))
        image = np.repeat((255 * gauss).astype(np.uint8)[:, :, None], 3, axis=2)
        return DrawnEar(image, np.array([[x, y]], np.float32))

    monkeypatch.setattr(drawn_ears, "draw_ear", spot)
    images, landmarks = found(DrawnEars(0), 100, 3)
    weight = images[:, 0] / images[:, 0].sum(dim=(1, 2), keepdim=True)
    at = torch.from_numpy(at).float()
    centres = torch.stack([(weight.sum(1) * at).sum(1), (weight.sum(2) * at).sum(1)], dim=1)
    assert (landmarks[:, 0] - centres).abs().max() < 0.01
    assert landmarks.std() > 0.05


def test_a_step_decides_which_ears_it_gets_whatever_came_before():
    """A resumed run meets the ears that it would have met."""
    before, after = DrawnEars(1), DrawnEars(1)
    for step in range(3):
        images, landmarks = found(before, step, step)
    again = found(after, 2, 2)
    assert torch.equal(images, again[0])
    assert torch.equal(landmarks, again[1])
    assert not torch.equal(images, found(DrawnEars(2), 2, 2)[0])


@pytest.mark.parametrize(("step", "most"), [(0, 4), (10, 14), (100_000, 2000)])
def test_a_run_does_not_begin_with_drawing_all_ears(monkeypatch, step, most):
    drawn = []

    def noted(seed: int, index: int, size: int) -> DrawnEar:
        drawn.append(index)
        return DrawnEar(np.zeros((size, size, 3), np.uint8), np.full((1, 2), 0.5, np.float32))

    monkeypatch.setattr(drawn_ears, "draw_ear", noted)
    ears = DrawnEars(0)
    for seed in range(450):
        found(ears, step, seed)
    assert len(drawn) == len(set(drawn)) <= most
    assert max(drawn) >= 0.9 * most - 1
