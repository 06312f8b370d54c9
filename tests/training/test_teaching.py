"""What the teaching objective compares."""

import torch
from torch.nn import functional
from torchvision.utils import make_grid

from earteach.config import ModelConfig
from earteach.data.strong_views import strong_views
from earteach.model.build import build_model
from earteach.model.correspondence import random_points
from earteach.model.feature_pyramid import descriptors
from earteach.randomness import views_generator
from earteach.training.drawn_ears import DrawnEars
from earteach.training.teaching import teach


def test_two_in_three_views_lie_in_mosaics():
    """Descriptors of nine images are those in five whole views and in a mosaic of the other four."""
    torch.manual_seed(0)
    config = ModelConfig(image_size=32, base_channels=4, latent_dim=8, pca_init=False)
    network, images = build_model(config), torch.rand(18, 3, 32, 32)
    with torch.no_grad():
        output = network.encode_all(images)
        matches, _ = teach(network, images, output, views_generator(0, 0, 0), DrawnEars(0), 0)
        generator = views_generator(0, 0, 0)
        views = strong_views(images[:9], generator)
        points = views.points(random_points(9, generator))
        mosaic = make_grid(functional.avg_pool2d(views.images[5:], 2), nrow=2, padding=0)
        whole, small = (
            network.pyramid(network.features(x)) for x in (views.images[:5], mosaic[None])
        )
    torch.testing.assert_close(matches.second[:5], descriptors(whole, points[:5]))
    for ear, (left, top) in enumerate([(-1, -1), (0, -1), (-1, 0), (0, 0)], start=5):
        visible = matches.visible[ear]
        placed = (points[ear, visible] + 1) / 2 + torch.tensor([left, top])
        found = descriptors(small, placed[None])[0]
        torch.testing.assert_close(matches.second[ear, visible], found)
