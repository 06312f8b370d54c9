"""From heat maps to places."""

import torch

from earteach.model.landmark_head import LandmarkHead, places_in


def peaks(*pixels: tuple[int, int], height: int = 20, width: int = 40) -> torch.Tensor:
    """One heat map with equal peaks at (row, column), as log-probabilities."""
    heat = torch.zeros(1, 1, height, width)
    for row, column in pixels:
        heat[0, 0, row, column] = 1 / len(pixels)
    return heat.log()


def test_a_single_peak_is_the_point_and_certain():
    points, confidence = places_in(peaks((4, 30)))
    torch.testing.assert_close(points[0, 0], torch.tensor([30.5 / 40, 4.5 / 20]))
    assert confidence.item() == 1


def test_two_peaks_far_apart_give_the_middle_and_no_confidence():
    points, confidence = places_in(peaks((4, 10), (4, 30)))
    torch.testing.assert_close(points[0, 0], torch.tensor([20.5 / 40, 4.5 / 20]))
    assert confidence.item() == 0
    assert places_in(peaks((4, 10), (4, 11))).confidence.item() == 1


def test_the_head_gives_a_distribution_for_each_landmark_at_the_finest_stride():
    levels = [torch.randn(2, 16, 24 // 2**level, 32 // 2**level) for level in range(3)]
    heat = LandmarkHead(16, 5)(levels)
    assert heat.shape == (2, 5, 24, 32)
    torch.testing.assert_close(heat.exp().sum(dim=(2, 3)), torch.ones(2, 5))
