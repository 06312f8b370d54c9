"""The transfer benchmark: one tiny run from end to end, and its measure of error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.transfer.__main__ import main
from benchmarks.transfer.landmarks import LabelledEars, error
from docs.examples.detector import Scene, average_precision
from tests.conftest import Run
from tests.scenes import scenes


@pytest.mark.slow
def test_every_start_has_its_column(
    trained: Run, ears: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs, boxes = scenes(tmp_path, 10)
    arrays = ears / "train_teacher.npy", ears / "val_teacher.npy"
    arguments = [
        *("--checkpoint", str(trained.last), "--landmarks", f"drawn={arrays[0]},{arrays[1]}"),
        *("--labels", "4", "--scenes", f"{photographs},{boxes}", "--photographs", "4"),
        *(
            "--seeds",
            "1",
            "--steps",
            "3",
            "--rates",
            "1e-3",
            "--save",
            str(tmp_path / "saved.json"),
        ),
    ]
    assert main(arguments) == 0
    saved = json.loads((tmp_path / "saved.json").read_text())
    (landmarks,) = saved["transfer-landmarks"]["rows"]
    assert landmarks[:2] == ["drawn", 4]
    assert all(0 < value < 100 for value in landmarks[2:5])
    assert landmarks[5] is None
    assert [row[:2] for row in saved["transfer-detection"]["rows"]] == [[4, 1], [4, 2], [4, 3]]
    assert "| drawn | 4 |" in capsys.readouterr().out


def test_the_error_is_a_share_of_the_diagonal_of_the_points() -> None:
    """Two points 0.5 apart, one of which is found 0.1 too far to the right."""
    true = torch.tensor([[[0.2, 0.3], [0.5, 0.7]]])

    class Found(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return true + torch.tensor([[0.1, 0.0], [0.0, 0.0]])

    ears = LabelledEars(torch.zeros(1, 3, 8, 8), true)
    assert error(Found(), ears) == pytest.approx(10.0)  # type: ignore[arg-type]


def test_the_average_precision_is_that_of_the_boxes() -> None:
    """The likeliest box is wrong and the second right: precision 1/2 at every recall."""
    box = torch.tensor([[10.0, 10.0, 30.0, 40.0]])

    class Detector(nn.Module):
        def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            boxes = torch.cat([box + 60, box])
            scores, labels = torch.tensor([0.9, 0.8]), torch.ones(2, dtype=torch.int64)
            return [{"boxes": boxes, "scores": scores, "labels": labels}]

    scene = Scene(torch.zeros(3, 120, 120, dtype=torch.uint8), box)
    assert average_precision(Detector(), [scene]) == pytest.approx((0.5, 0.5))
