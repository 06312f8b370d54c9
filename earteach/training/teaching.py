"""What the teaching objective compares: points of images in strong views, and landmarks of drawn ears.

The views are a function of (seed, step, rank), as the latent noise is.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from earteach.data.strong_views import strong_views
from earteach.model.correspondence import Matches, random_points
from earteach.model.feature_pyramid import descriptors
from earteach.model.landmark_head import LabelledHeat
from earteach.model.vae import ConvVAE, EncoderOutput
from earteach.training.drawn_ears import DrawnEars


def teach(
    network: ConvVAE,
    images: torch.Tensor,
    output: EncoderOutput,
    generator: torch.Generator,
    ears: DrawnEars,
    step: int,
) -> tuple[Matches, LabelledHeat | None]:
    """Points of half of the images, in the encoder's `output` and in a strong view of each; and, if the
    network has a landmark head, what it makes of drawn ears.

    The views keep the side that they show, so that the encoder meets both sides. About half lie in
    mosaics: a detector meets small ears among other things, and a mosaic has four at the cost of one
    image. Mosaics, other views and drawn ears pass the encoder together, as small batches are slow.
    """
    count, pyramid = -(-len(images) // 2), network.pyramid
    assert pyramid is not None
    views = strong_views(images[:count], generator)
    points = random_points(count, generator).to(images.device)
    moved = views.points(points)
    whole = count - count * 2 // 3 // 4 * 4
    mosaics, placed = _mosaics(views.images[whole:], moved[whole:])
    shown, head = torch.cat([views.images[:whole], mosaics]), network.landmark_head
    labelled, landmarks = shown[:0], None
    if head is not None:
        labelled, landmarks = ears.views(network, step, generator)
    pieces = [whole, len(mosaics), len(labelled)]
    levels = pyramid(network.features_beside(shown, labelled))
    in_whole, in_mosaics, in_drawn = zip(*(level.split(pieces) for level in levels), strict=True)
    first = descriptors(pyramid([level[:count] for level in output.maps]), points)
    small = descriptors(in_mosaics, placed).reshape(-1, *first.shape[1:])
    second = torch.cat([descriptors(in_whole, moved[:whole]), small])
    visible = (moved.abs() < 1).all(dim=2)
    matches = _on_canonical_side(Matches(points, visible, first, second), output.is_canonical)
    if head is None or landmarks is None:
        return matches, None
    return matches, LabelledHeat(head(in_drawn), landmarks)


def _on_canonical_side(matches: Matches, is_canonical: torch.Tensor | None) -> Matches:
    """With points where they are on the canonical side, if the network has one."""
    if is_canonical is None:
        return matches
    side = torch.where(is_canonical[: len(matches.points)], 1.0, -1.0)[:, None]
    x, y = matches.points.unbind(dim=2)
    return matches._replace(points=torch.stack([x * side, y], dim=2), is_canonical=True)


def _mosaics(views: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Views `(4 M, C, S, S)` at half their size as `(M, C, S, S)`, and points as `(M, 4 P, 2)`."""
    half = functional.avg_pool2d(views, 2)
    tiles = half.reshape(len(views) // 4, 2, 2, *half.shape[1:])  # M, row, column, C, S / 2, S / 2
    mosaics = tiles.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
    centres = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]).to(points)
    # A point outside its view must not lie in another ear.
    placed = points.clamp(-1, 1).reshape(len(views) // 4, 4, *points.shape[1:]) / 2
    return mosaics, (placed + centres[:, None]).flatten(1, 2)
