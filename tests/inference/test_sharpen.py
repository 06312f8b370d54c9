"""A second decoder: what it changes, what it leaves alone, and when it is used."""

import logging
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from earteach.config import InferenceConfig
from earteach.errors import EarTeachError
from earteach.images import to_uint8
from earteach.inference import sharpen as module
from earteach.inference.evaluate import evaluate
from earteach.inference.loaded_model import load_model
from earteach.inference.sample import sample
from earteach.inference.samplers import draw_codes, find_source, get_mixture
from earteach.inference.second_decoder import load_second_decoder
from earteach.inference.sharpen import sharpen
from earteach.model.discriminator import Discriminator
from tests.conftest import earteach as command
from tests.inference.conftest import rename_arrays, stacked, untrained


def drawn(checkpoint: Path, out: Path) -> np.ndarray:
    return stacked(sample(checkpoint, out, number=6, nearest=False).images)


def test_samples_change_and_reconstructions_do_not(placed, tmp_path):
    before, values = drawn(placed, tmp_path / "a"), evaluate(placed, baselines=False).metrics
    result = sharpen(placed, steps=3)
    assert result.path == placed.with_suffix(".sharp.npz")
    assert (drawn(placed, tmp_path / "b") != before).any()
    assert evaluate(placed, baselines=False).metrics == values
    result.path.unlink()
    assert np.array_equal(drawn(placed, tmp_path / "c"), before)


def test_the_seed_and_the_steps_decide_the_decoder(placed):
    first, again, other, longer = (
        sharpen(placed, steps=steps, seed=seed).path.read_bytes()
        for steps, seed in [(2, 1), (2, 1), (2, 2), (3, 1)]
    )
    assert first == again
    assert len({first, other, longer}) == 3


@pytest.mark.parametrize("stopped", [0, 3, 11, 12])  # the decoder's last step is the tenth
def test_an_interrupted_training_goes_on_and_ends_alike(placed, monkeypatch, caplog, stopped):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "_SAVE_INTERVAL", 2)
    whole = sharpen(placed, steps=12).path.read_bytes()

    def interrupt(done: int, _total: int) -> None:
        if done == stopped:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sharpen(placed, steps=12, progress=interrupt)
    sharpen(placed, steps=4)  # other options: from the start, and the saved state stays out of it
    with pytest.raises(KeyboardInterrupt):
        sharpen(placed, steps=12, progress=interrupt)
    caplog.clear()
    seen: list[int] = []
    result = sharpen(placed, steps=12, progress=lambda done, _total: seen.append(done))
    assert result.path.read_bytes() == whole
    assert seen[0] == stopped
    assert f"continuing after {stopped} of 12 steps" in caplog.text
    assert not list(placed.parent.glob("*.sharpening"))


def test_a_damaged_saved_state_is_left_alone(placed):
    whole = sharpen(placed, steps=3).path.read_bytes()
    placed.with_suffix(".sharpening").write_bytes(b"no state")
    assert sharpen(placed, steps=3).path.read_bytes() == whole


def test_each_ear_is_the_one_of_two_that_looks_more_real(placed, tmp_path):
    """Found again by decoding the mixture's codes one by one."""
    sharpen(placed, steps=20)
    model = load_model(placed)
    second = load_second_decoder(model)
    codes = list(islice(get_mixture(model).codes(5, 1.1), 10))
    with torch.no_grad():
        ears = [second.network.decode(code[None]) for code in codes]
        logits = np.array([second.discriminator(ear)[0].item() for ear in ears])
    best = logits.reshape(5, 2).argmax(axis=1) + 2 * np.arange(5)
    expected = np.stack([to_uint8(ears[index])[0] for index in best])
    for number in (5, 2):
        result = sample(placed, tmp_path / str(number), number=number, seed=5, nearest=False)
        assert np.abs(stacked(result.images) - expected[:number]).max() <= 1


def test_a_decoder_of_other_weights_is_not_used(placed, caplog):
    caplog.set_level(logging.INFO)
    sharpen(placed, steps=2)
    state = torch.load(placed, weights_only=True)
    for name, value in state["state_dict"].items():
        if value.is_floating_point() and "decoder" in name:
            state["state_dict"][name] = value + 0.01
    torch.save(state, placed)
    assert load_second_decoder(load_model(placed)) is None
    assert f"run `earteach sharpen {placed}` again" in caplog.text


def test_it_needs_the_training_images(placed, tmp_path):
    rename_arrays(placed, train_data=tmp_path / "gone.npy")
    result = command("sharpen", placed)
    assert result.code == 1
    assert result.err.startswith("error: ")
    assert "gone" in result.err
    assert "`sharpen` needs the training images" in result.err
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize("steps", [0, -3])
def test_steps_are_at_least_one(placed, steps):
    with pytest.raises(EarTeachError, match=f"--steps {steps}: must be at least 1"):
        sharpen(placed, steps=steps)


def test_the_command_says_what_to_do_next(placed):
    result = command("sharpen", placed, "--steps", 1, "--json")
    assert result.code == 0, result.err
    assert result.json["checkpoint"] == str(placed)
    assert Path(result.json["path"]).exists()
    assert result.json["images"] == 41


@pytest.mark.parametrize("part", ["encoder", "features", "landmarks", "decoder"])
def test_a_part_of_a_network_is_refused(placed, tmp_path, part):
    out = tmp_path / part
    assert (
        command("export", placed, "--format", "safetensors", "--part", part, "--out", out).code == 0
    )
    result = command("sharpen", out)
    assert result.code == 1
    assert f"holds only the {part} of a network" in result.err


def test_a_decoder_that_diverged_is_not_stored(placed, monkeypatch):
    monkeypatch.setattr(module, "_DECODER_RATE", float("nan"))
    with pytest.raises(EarTeachError, match="the second decoder diverged; try another --seed"):
        sharpen(placed, steps=3)
    assert not list(placed.parent.glob("*.sharp.npz"))


@pytest.mark.parametrize("images", [1, 2, 5])
def test_few_images_are_enough_for_a_decoder(placed, tmp_path, ears, images):
    np.save(tmp_path / "few.npy", np.load(ears / "train_teacher.npy")[:images])
    rename_arrays(placed, train_data=tmp_path / "few.npy")
    result = sharpen(placed, steps=2, config=InferenceConfig(batch_size=3))
    assert result.images == images


@pytest.mark.parametrize("options", [{"pca_init": False}, {"in_channels": 1}])
def test_networks_without_sides_and_gray_ones(placed, tmp_path, options):
    checkpoint = untrained(placed, **options)
    sharpen(checkpoint, steps=2, config=InferenceConfig(batch_size=1))
    assert sample(checkpoint, tmp_path / "out", number=2, nearest=False).images


def test_only_ears_like_those_it_learned_from_are_decoded_with_it(placed, tmp_path):
    """The prior's codes and those of a traversal are not; those between two ears are."""

    def written(*arguments: object) -> list[bytes]:
        result = command("sample", placed, "--no-nearest", "--out", tmp_path / "out", *arguments)
        assert result.code == 0, result.err
        return [path.read_bytes() for path in sorted((tmp_path / "out").glob("sample-*.png"))]

    kinds = [("--sampler", "prior"), ("--traverse", 2), ("--interpolate", 0, 1)]
    before = [written(*kind) for kind in kinds]
    sharpen(placed, steps=20)
    after = [written(*kind) for kind in kinds]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, True, False]


@pytest.mark.parametrize(("channels", "size"), [(1, 16), (3, 48), (3, 64), (1, 256)])
def test_a_discriminator_judges_images_and_their_places(channels, size):
    whole, places = Discriminator(channels, size)(torch.rand(2, channels, size, size))
    assert whole.shape == (2, 1)
    assert len(places) == 2
    assert torch.isfinite(whole).all()


def test_the_penalty_is_the_squared_gradient(placed, monkeypatch):
    """Of a discriminator whose logits are weighted sums of the pixels."""
    training = module._AdversarialTraining(load_model(placed), 1, 0)
    a, b = torch.rand(2, 3 * 32 * 32)
    monkeypatch.setattr(
        training,
        "discriminator",
        lambda x: ((x.flatten(1) @ a)[:, None], (x.flatten(1) @ b)[:, None]),
    )
    expected = 0.05 / 2 * (a + b).square().sum()
    torch.testing.assert_close(training._r1_penalty(torch.rand(2, 3, 32, 32)), expected)


def test_new_ears_take_on_what_only_photographs_show(placed, ears, monkeypatch):
    """Here it is every other line, which nothing but the discriminator can teach."""
    monkeypatch.setattr(module, "_SSIM_WEIGHT", 0.0)
    monkeypatch.setattr(module, "_DECODER_RATE", 3e-3)
    images = torch.from_numpy(np.load(ears / "train_teacher.npy")).permute(0, 3, 1, 2) / 255
    lines = torch.tensor([1.0, -1.0]).repeat(16)[:, None].expand(32, 32)
    model, steps = load_model(placed), 150
    training = module._AdversarialTraining(model, steps, 0)
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(steps, 4, 16, generator=generator)
    network = model.network

    def shown(decoder: torch.nn.Module) -> float:
        network.decoder = decoder
        with torch.no_grad():
            return float((network.decode(codes[:8].flatten(0, 1)) * lines).mean())

    before = shown(network.decoder)
    for step in range(steps):
        rows = torch.randint(len(images), (8,), generator=generator)
        training.step(step, (images[rows] + 0.08 * lines).clamp(0, 1), codes[step])
    assert abs(before) < 0.004
    assert 0.02 < shown(training.ema_decoder) < 0.2


def test_it_learns_from_other_codes_than_sample_draws(placed):
    model = load_model(placed)
    learned = next(module._new_codes(model, 8, 42))
    (sampled,) = draw_codes(find_source(model, "gmm"), 8, 42, batch_size=8)
    assert torch.cdist(learned[:, :-1], sampled[:, :-1]).min() > 0.1


def test_a_full_disk_is_one_line(placed, monkeypatch):
    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed")

    monkeypatch.setattr(module, "_SAVE_INTERVAL", 1)
    monkeypatch.setattr(torch, "save", full)
    result = command("sharpen", placed, "--steps", 3)
    assert result.code == 1
    assert "the disk is full; free space, then `earteach sharpen`" in result.err
    assert not list(placed.parent.glob("*.sharp*"))
