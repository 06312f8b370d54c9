"""A student beside its teacher, against a second computation."""

from pathlib import Path

import pytest
import torch
from sklearn.metrics import r2_score

from earteach import EarTeachError, checkpoint
from earteach.distillation.comparison import compare
from tests.conftest import Run
from tests.distillation.conftest import Student


def test_the_comparison_at_the_end_of_a_run(student: Student):
    reported, x = student.result["comparison"], student.images
    best = Path(student.result["best"]["loss"]["path"])
    network, teacher = checkpoint.load(best), checkpoint.load(student.teacher)
    with torch.no_grad():
        expected, actual = teacher.encode(x)[0], network.encode(x)[0]
        maps = zip(teacher.features(x), network.features(x), strict=True)
        error = (teacher.decode(actual) - x).square().mean(dim=(1, 2, 3))
    codes_r2 = r2_score(
        expected[:, :-1].numpy(), actual[:, :-1].numpy(), multioutput="variance_weighted"
    )
    assert reported["codes_r2"] == pytest.approx(codes_r2, abs=1e-5)
    for r2, pair in zip(reported["features_r2"], maps, strict=True):
        rows = [level.movedim(1, -1).flatten(0, 2).double().numpy() for level in pair]
        assert r2 == pytest.approx(r2_score(*rows, multioutput="variance_weighted"), abs=1e-4)
    agreement = (actual[:, -1] == expected[:, -1]).float().mean().item()
    assert reported["side_agreement"] == pytest.approx(agreement)
    psnr = -10 * error.log10().mean().item()
    assert reported["student"]["psnr"] == pytest.approx(psnr, abs=1e-3)
    assert reported["images"] == len(x)
    assert reported["student"]["checkpoint"] == str(best)
    assert reported["student"]["fixed_numbers"] == 0
    fixed = sum(buffer.numel() for buffer in teacher.pca.buffers())
    assert reported["teacher"]["fixed_numbers"] == fixed
    parameters = sum(p.numel() for p in teacher.encoder.parameters())
    assert reported["teacher"]["parameters"] == parameters
    assert reported["speed_ratio"] > 0
    assert compare(student.folder).codes_r2 == reported["codes_r2"]


def test_only_students_are_compared(trained: Run):
    with pytest.raises(EarTeachError, match="not a student"):
        compare(trained.last)
