"""What a student starts with, what it learns, and what its checkpoints hold."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from earteach import checkpoint
from earteach.distillation.distillation_loss import DistillationBatch, distillation_terms
from earteach.distillation.student_module import StudentLightning, init_from_coarse_images
from earteach.model.loss import objective
from earteach.training.lightning_module import EarVAELightning
from tests.distillation.conftest import EPOCHS, Student
from tests.model.networks import network, pca_network
from tests.training.test_exact_resume import equal, recorded


@pytest.fixture
def untrained(student: Student) -> StudentLightning:
    torch.manual_seed(0)
    module = StudentLightning(checkpoint.read(student.last).config.to_dict())
    module.with_teacher(checkpoint.load(student.teacher)).init_from_teacher()
    return module


def code_error(network: torch.nn.Module, student: Student) -> float:
    x, size = student.images, 15  # without the side
    with torch.no_grad():
        expected = checkpoint.load(student.teacher).encode(x)[0][:, :size]
        return float((network.encode(x)[0][:, :size] - expected).square().mean())


def test_a_student_comes_nearer_to_its_teacher(student: Student, untrained: StudentLightning):
    losses = [metrics["val/loss"] for _, _, metrics in recorded(student.logs)]
    assert len(losses) == EPOCHS
    assert losses[-1] < 0.95 * losses[0]
    assert student.result["best"]["loss"]["value"] == min(losses)
    trained = checkpoint.load(student.last)
    assert code_error(trained, student) < code_error(untrained.averaged, student)
    # Only the encoder and the side have learned.
    for name, value in trained.state_dict().items():
        frozen = name.startswith(("decoder.", "pca.", "pyramid.", "landmark_head."))
        assert torch.equal(value, untrained.model.state_dict()[name]) == frozen, name


def test_all_but_the_encoder_is_the_teachers(student: Student):
    trained, teacher = checkpoint.load(student.last), checkpoint.load(student.teacher)
    for part in ("decoder", "pca"):
        mine, theirs = (getattr(n, part).state_dict() for n in (trained, teacher))
        assert equal(mine, theirs), part
    # The teacher is in no checkpoint of its student.
    weights = torch.load(student.last, weights_only=True)["state_dict"]
    assert not any("teacher" in name for name in weights)
    loaded = EarVAELightning.load_from_checkpoint(student.last)
    with torch.no_grad():
        assert torch.equal(loaded.encode(student.images), trained.encode(student.images)[0])


def test_validation_takes_the_loss_of_training(student: Student, untrained: StudentLightning):
    """All validation images are one batch; where the sides agree, the losses are the same."""
    trained, teacher = checkpoint.load(student.last), checkpoint.load(student.teacher)
    x = student.images
    with torch.no_grad():
        target = teacher.encode_all(x)
        output = trained.encode_all(x)
        assert torch.equal(output.is_canonical, target.is_canonical)
        batch = DistillationBatch(output, target, trained.side(x))
        terms = distillation_terms(teacher)
        loss = objective(terms, {term.name: term.values_of(batch) for term in terms}).item()
        logged = checkpoint.read(student.last).about["metrics"]
        assert logged["val/loss"] == pytest.approx(loss, rel=1e-4)
        # In training, a student that sees the other side is shown the teacher's.
        untrained.model.load_state_dict(trained.state_dict())
        untrained.model.side.network[-1].weight.neg_()
        bytes_ = (x * 255).round().to(torch.uint8)
        step = untrained.training_step({"input": bytes_, "target": bytes_}, 0)
        flipped = batch._replace(side_logits=-trained.side(x))
        expected = objective(terms, {term.name: term.values_of(flipped) for term in terms})
    torch.testing.assert_close(step, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("size", [32, 48, 144])
def test_the_coarse_head_starts_as_the_best_linear_guess(size):
    """Against ridge regression on images drawn from the probabilistic PCA model."""
    pca = pca_network(size, 16, 2, 3).pca
    encoder = network(size, 16, 2, 3, encoder="mobile").encoder
    init_from_coarse_images(encoder, pca)
    generator = torch.Generator().manual_seed(3)
    codes = torch.randn(20_000, 15, generator=generator)
    scores = (codes @ pca.rotation.T) * pca.variances.sqrt()
    images = pca.components.reshape(15, *pca.shape)
    components = functional.adaptive_avg_pool2d(images, 16).flatten(1)
    noise = pca.variances.min().sqrt() * 16 / pca.shape[1]
    coarse = scores @ components + noise * torch.randn(20_000, 768, generator=generator)
    x, y = coarse.double().numpy(), codes.double().numpy()
    expected = np.linalg.solve(x.T @ x, x.T @ y).T @ components.numpy().T
    weight = encoder.coarse_head.linear.weight[:15].detach().numpy()
    np.testing.assert_allclose(weight @ components.numpy().T, expected, atol=0.02)
    mean = functional.interpolate(pca.mean.reshape(1, *pca.shape), size=(size, size))
    with torch.no_grad():  # the mean image has the mean code
        assert encoder.coarse_head(mean)[:, :15].abs().max() < 1e-3
