"""The canonical side: flipping, deciding, and keeping the side in the code."""

import pytest
import torch

from earteach.model.canonical_side import SideClassifier, mirrored, side_by_residual
from earteach.model.pca_path import PCAPath
from tests.model.networks import images_for, pca_network


def test_mirrored_flips_the_selected_images():
    x = torch.arange(24.0).reshape(2, 1, 3, 4)
    assert mirrored(x)[0, 0, 0].tolist() == [3, 2, 1, 0]
    flipped = mirrored(x, torch.tensor([False, True]))
    assert torch.equal(flipped[0], x[0])
    assert flipped[1, 0, 2].tolist() == [23, 22, 21, 20]


def test_pca_decides_by_the_smaller_residual():
    pca = pca_network().pca
    x = images_for(pca_network(), 40)
    is_canonical, code = side_by_residual(x, pca)
    assert 0 < is_canonical.sum() < 40
    # In pixels: the picture of the chosen side is nearer to its image than the other side's.
    oriented = torch.where(is_canonical[:, None, None, None], x, x.flip(3))
    errors = [(pca.decode(pca.encode(y)[0]) - y).square().sum(dim=(1, 2, 3))
              for y in (oriented, oriented.flip(3))]  # fmt: skip
    assert (errors[0] < errors[1]).all()
    torch.testing.assert_close(code, pca.encode(oriented)[0])
    symmetric = (x + x.flip(3)) / 2
    assert side_by_residual(symmetric, pca)[0].all()


def test_without_components_every_ear_stays_as_it_is():
    pca = PCAPath(3, 16, 32)
    assert side_by_residual(torch.rand(200, 3, 32, 32), pca)[0].all()


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (48, 3), (144, 3)])
def test_the_classifier_gives_a_mirror_image_the_opposite_logit(size, channels):
    torch.manual_seed(0)
    classifier = SideClassifier(size)
    x = torch.rand(8, channels, size, size)
    with torch.no_grad():
        logits = classifier(x)
        assert logits.shape == (8,)
        assert logits.abs().min() > 0
        assert torch.equal(logits, -classifier(x.flip(3)))
        assert classifier(x + x.flip(3)).abs().max() == 0
