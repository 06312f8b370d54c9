"""The transfer benchmark: one tiny run from end to end, and its measure of error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.tables import Table
from benchmarks.transfer.__main__ import main
from benchmarks.transfer.backbones import STARTS
from benchmarks.transfer.landmarks import error
from benchmarks.transfer.plots import error_charts, precision_charts
from docs.examples.detector import Scene, average_precision
from earteach.inference.landmark_training import LabelledEars
from tests.conftest import Run
from tests.scenes import scenes


@pytest.mark.slow
def test_every_start_has_its_column(
    trained: Run, ears: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs, boxes = scenes(tmp_path, 10)
    arrays = ears / "train_teacher.npy", ears / "val_teacher.npy"
    kept, saved = tmp_path / "trainings.jsonl", tmp_path / "saved.json"
    arguments = [
        *("--checkpoint", str(trained.last), "--landmarks", f"drawn={arrays[0]},{arrays[1]}"),
        *("--labels", "4", "--scenes", f"{photographs},{boxes}", "--photographs", "4"),
        *("--starts", "from noise", "frozen", "--rates", "1e-3", "1e-4"),
        *("--seeds", "2", "--steps", "3", "--trainings", str(kept), "--save", str(saved)),
    ]
    assert main(arguments) == 0
    tables = json.loads(saved.read_text())
    (landmarks,) = tables["transfer-landmarks"]["rows"]
    curves = dict(map(json.loads, kept.read_text().splitlines()))
    frozen = [
        curves[f"drawn, 4 labels, frozen, rate 0.001, seed {n}, 3 steps"][0][1] for n in (0, 1)
    ]
    assert landmarks[:2] == ["drawn", 4]
    assert float(landmarks[2 + STARTS.index("frozen")].split()[0]) == pytest.approx(
        sum(frozen) / 2, abs=0.01
    )
    assert landmarks[2 + STARTS.index("fine-tuned")] is None
    assert [row[:2] for row in tables["transfer-detection"]["rows"]] == [[4, 1], [4, 2], [4, 3]]
    # From noise at two rates, frozen at one; each with two seeds.
    assert len(curves) == 2 * (4 + 2)
    assert main(arguments) == 0  # from the curves kept
    assert len(kept.read_text().splitlines()) == len(curves)
    assert "| drawn | 4 |" in capsys.readouterr().out


def test_a_chart_for_each_number_of_photographs_has_a_line_for_each_start_measured() -> None:
    columns = dict.fromkeys(("photographs", "steps", "from noise", "ImageNet", "fine-tuned"), "")
    rows = [[n, 9 * at, f"{n + at}.5 / 1.0", None, "30.0 / 2.0"] for n in (4, 8) for at in (1, 2)]
    four, eight = precision_charts(Table(columns, rows, "", "", ""))
    assert four.series == {"from noise": [(9, 5.5), (18, 6.5)], "fine-tuned": [(9, 30), (18, 30)]}
    assert eight.series["from noise"] == [(9, 9.5), (18, 10.5)]


def test_errors_are_drawn_over_the_number_of_labels() -> None:
    columns = dict.fromkeys(("landmarks", "labels", "from noise", "fine-tuned"), "")
    rows = [["ami", 10, "4.00 (3.60–4.32)", "3.02"], ["ami", 50, "3.50", None]]
    (ami,) = error_charts(Table(columns, rows, "", "", ""))
    assert ami.series == {"from noise": [(10, 4.0), (50, 3.5)], "fine-tuned": [(10, 3.02)]}
    assert ami.log_x


def test_the_error_is_a_share_of_the_diagonal_of_the_points() -> None:
    """Two points 0.5 apart, one of which is found 0.1 too far to the right."""
    true = torch.tensor([[[0.225, 0.325], [0.525, 0.725]]])
    heat = torch.zeros(1, 2, 20, 20)  # pixels of 0.05
    heat[0, 0, 6, 6] = heat[0, 1, 14, 10] = 1
    ears = LabelledEars(torch.zeros(1, 3, 40, 40, dtype=torch.uint8), true)
    assert error(lambda images: heat.log(), ears) == pytest.approx(10.0)


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
