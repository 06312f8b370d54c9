"""What a run logs to TensorBoard beside scalars: pictures, histograms, and hyperparameters."""

from __future__ import annotations

import json
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata, plugin_data_pb2

import earteach
from tests.conftest import Run

SIDE, GAP = 32, 2


@pytest.fixture(scope="module")
def events(trained: Run) -> EventAccumulator:
    found = EventAccumulator(str(trained.logs), size_guidance={"images": 0})
    return found.Reload()


def pictures(events: EventAccumulator, tag: str) -> list[np.ndarray]:
    return [
        np.asarray(Image.open(BytesIO(event.encoded_image_string))) for event in events.Images(tag)
    ]


def tile(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    top, left = (GAP + place * (SIDE + GAP) for place in (row, column))
    return sheet[top : top + SIDE, left : left + SIDE]


def pixels(images: torch.Tensor) -> np.ndarray:
    return (images.detach() * 255).round().byte().permute(0, 2, 3, 1).numpy()


def test_each_epoch_has_a_histogram_of_klds(trained: Run):
    events = EventAccumulator(str(trained.logs), size_guidance={"histograms": 0}).Reload()
    histograms = events.Histograms("val/kld_per_dimension")
    lines = (trained.logs / "metrics.jsonl").read_text().splitlines()
    logged = [json.loads(line)["metrics"]["val/kld"] for line in lines]
    assert [each.histogram_value.num for each in histograms] == [16] * 4
    sums = [each.histogram_value.sum for each in histograms]
    assert sums == pytest.approx(logged, rel=1e-4)


def test_each_epoch_has_its_reconstructions_and_samples(trained: Run, events: EventAccumulator):
    epochs = trained.result["epochs_completed"]
    for tag in ("val/reconstructions", "samples"):
        assert len(pictures(events, tag)) == epochs
    model, seed = earteach.load(trained.last), 42
    wanted = pixels(model.sample(8, torch.Generator().manual_seed(seed)))
    sheet = pictures(events, "samples")[-1]
    for place, ear in enumerate(wanted):
        assert np.abs(tile(sheet, *divmod(place, 4)).astype(int) - ear).max() <= 1


def test_the_last_epoch_has_traversals_about_the_mean_code(trained: Run, events: EventAccumulator):
    (sheet,) = pictures(events, "traversals")
    assert sheet.shape[:2] == tuple(GAP + count * (SIDE + GAP) for count in (4, 7))
    model = earteach.load(trained.last)
    mean = pixels(model.decode(torch.zeros(1, model.latent_dim)))[0]
    for row in range(4):
        assert np.abs(tile(sheet, row, 3).astype(int) - mean).max() <= 1
    # Each row moves a number of its own, and its ends are where one number is −3 and 3.
    ends = {tuple(tile(sheet, row, column).ravel()) for row in range(4) for column in (0, 6)}
    codes = torch.cat([-3 * torch.eye(16), 3 * torch.eye(16)])
    possible = [image.astype(int) for image in pixels(model.decode(codes))]
    assert len(ends) > 1
    for end in ends:
        flat = np.array(end).reshape(SIDE, SIDE, 3)
        assert min(np.abs(flat - image).max() for image in possible) <= 1


def test_the_curves_of_a_run(events: EventAccumulator):
    curves = {"train/loss", "val/loss", "val/psnr", "val/ssim", "val/kld", "lr"}
    assert curves <= set(events.Tags()["scalars"])
    assert set(events.Tags()["images"]) == {"val/reconstructions", "samples", "traversals"}


def test_the_table_of_runs_has_the_options_beside_the_results(events: EventAccumulator):
    contents = events.PluginTagToContent(metadata.PLUGIN_NAME)
    parsed = {
        tag: plugin_data_pb2.HParamsPluginData.FromString(content)
        for tag, content in contents.items()
    }
    start = parsed[metadata.SESSION_START_INFO_TAG].session_start_info
    assert start.hparams["latent_dim"].number_value == 16
    names = {info.name.tag for info in parsed[metadata.EXPERIMENT_TAG].experiment.metric_infos}
    assert names == {"val/loss", "val/psnr", "val/ssim", "val/kld"}
    assert names <= set(events.Tags()["scalars"])
