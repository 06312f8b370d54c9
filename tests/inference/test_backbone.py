"""The encoder as a backbone: its own maps, frozen or learning, inside torchvision's detectors."""

from __future__ import annotations

import copy

import pytest
import torch
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator

import earteach
from earteach.errors import EarTeachError
from earteach.inference.backbone import EarBackbone
from tests.conftest import Run
from tests.model.networks import lively, network


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


def test_maps_are_the_networks_own(trained: Run):
    network = earteach.load(trained.checkpoints)
    backbone = earteach.EarBackbone.from_checkpoint(trained.checkpoints)
    x = images(2, 3, 32, 32)
    maps = backbone(x)
    info = [(level.name, level.channels, level.stride) for level in backbone.feature_info]
    assert info == [("stride2", 8, 2), ("stride4", 16, 4), ("stride8", 32, 8), ("stride16", 64, 16)]
    assert list(maps) == [name for name, _, _ in info]
    for (_, channels, stride), level, expected in zip(
        info, maps.values(), network.features(x), strict=True
    ):
        assert level.shape == (2, channels, 32 // stride, 32 // stride)
        assert torch.equal(level, expected)


@pytest.mark.parametrize("pca_init", [True, False])
def test_any_size_goes_through(pca_init):
    backbone = EarBackbone(lively(pca_init=pca_init))
    for size in ((32, 32), (64, 48), (37, 90), (16, 5)):
        maps = backbone(images(2, 3, *size))
        for level in backbone.feature_info:
            sides = [-(-side // level.stride) for side in size]
            assert maps[level.name].shape == (2, level.channels, *sides)
            assert maps[level.name].isfinite().all()


def test_maps_of_a_mirrored_larger_image_are_mirrored():
    backbone, x = EarBackbone(lively()), images(3, 3, 96, 64)
    for level, mirrored in zip(backbone(x).values(), backbone(x.flip(3)).values(), strict=True):
        torch.testing.assert_close(mirrored, level.flip(3), atol=1e-3, rtol=1e-4)


def test_a_frozen_encoder_stays_as_it_is():
    backbone = EarBackbone(lively(), frozen=True, fpn=8).train()
    assert not backbone.network.training
    assert backbone.pyramid is not None
    assert backbone.pyramid.training
    assert not any(parameter.requires_grad for parameter in backbone.network.parameters())
    sum(level.sum() for level in backbone(images(1, 3, 32, 32)).values()).backward()
    assert all(parameter.grad is None for parameter in backbone.network.parameters())
    assert all(parameter.grad is not None for parameter in backbone.pyramid.parameters())


def test_every_weight_of_a_trainable_one_learns():
    model = lively()
    backbone = EarBackbone(model, frozen=False).train()
    assert backbone.network.training
    sum(level.square().sum() for level in backbone(images(2, 3, 32, 32)).values()).backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    # The network that it was made from is another.
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_copy_keeps_only_what_maps_need():
    backbone = copy.deepcopy(EarBackbone(lively()))
    parts = {tuple(name.split(".")[:2]) for name, _ in backbone.network.named_parameters()}
    assert parts == {("encoder", "blocks")}
    with pytest.raises(EarTeachError, match="holds the network's features but no decoder"):
        backbone.network.decode(torch.zeros(1, 16))


@pytest.mark.parametrize("encoder", ["attention", "mobile"])
@pytest.mark.parametrize("frozen", [True, False])
def test_the_trained_pyramid_is_the_networks(frozen, encoder):
    model = lively(pyramid_channels=12, encoder=encoder)
    backbone = EarBackbone(model, frozen=frozen, fpn="trained", strides=[4, 16]).train()
    x = images(2, 3, 48, 40)
    maps = backbone(x)
    assert (list(maps), backbone.out_channels) == (["stride4", "stride16"], 12)
    _, at_4, _, at_16 = model.pyramid(model.features(x))
    assert torch.equal(maps["stride4"], at_4)
    assert torch.equal(maps["stride16"], at_16)
    assert any(level.requires_grad for level in maps.values()) != frozen
    with pytest.raises(EarTeachError, match="has no trained pyramid"):
        EarBackbone(lively(pyramid_channels=0), fpn="trained")


def test_without_weights_it_is_the_same_architecture_from_noise(trained: Run):
    loaded, noise = (
        EarBackbone.from_checkpoint(trained.checkpoints, weights=weights).state_dict()
        for weights in (True, False)
    )
    assert {name: v.shape for name, v in loaded.items()} == {n: v.shape for n, v in noise.items()}
    weight = "network.encoder.blocks.1.0.weight"
    assert not torch.equal(loaded[weight], noise[weight])


def test_channels_and_strides():
    assert EarBackbone(lively(), fpn=12).out_channels == 12
    assert EarBackbone(lively(), strides=[16]).out_channels == 64
    assert not hasattr(EarBackbone(lively()), "out_channels")
    for strides in ([], [3], [2, 32]):
        with pytest.raises(EarTeachError, match="must be a subset of"):
            EarBackbone(lively(), strides=strides)


@pytest.mark.parametrize("frozen", [True, False])
def test_torchvisions_detectors_take_it(frozen):
    torch.manual_seed(0)
    backbone = EarBackbone(lively(), frozen=frozen, strides=[4, 8, 16], fpn=32)
    anchors = AnchorGenerator(((32,), (64,), (128,)), ((1.0,),) * 3)
    plain = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3, "min_size": 64, "max_size": 96}
    detector = FCOS(backbone, 2, anchor_generator=anchors, **plain).train()
    pictures = [images(3, 50, 70), images(3, 64, 40)]
    boxes = torch.tensor([[10.0, 12.0, 34.0, 40.0]])
    targets = [{"boxes": boxes, "labels": torch.tensor([1])}] * 2
    losses = detector(pictures, targets)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    first = detector.backbone.network.encoder.blocks[0][0].weight
    assert (first.grad is None) == frozen
    with torch.inference_mode():
        detections = detector.eval()(pictures)
    assert [set(entry) for entry in detections] == [{"boxes", "scores", "labels"}] * 2


def test_all_weights_of_a_student_learn_but_for_those_that_decide_the_side():
    student = network(encoder="mobile")
    backbone = EarBackbone(student, frozen=False)
    x = images(2, 3, 48, 40)
    maps = backbone(x)
    for level, expected in zip(maps.values(), student.features(x), strict=True):
        assert torch.equal(level, expected)
    sum(level.square().mean() for level in maps.values()).backward()
    unused = [name for name, weight in backbone.named_parameters() if weight.grad is None]
    assert all(name.startswith("network.side.") for name in unused), unused
