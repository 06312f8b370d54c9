"""A trained network for other runtimes, its numbers checked against torch's.

ONNX is one file for onnxruntime and its kin. Safetensors is a folder with `model.safetensors` and
`config.json`, for torch without a pickle.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import earteach
from earteach import checkpoint
from earteach.checkpoint import Checkpoint
from earteach.config import ExportFormat, ExportPart, ModelConfig
from earteach.data.arrays import EarArray
from earteach.data.batches import image_batches
from earteach.data.drawn import draw_ear
from earteach.errors import EarTeachError
from earteach.images import make_folder
from earteach.model.vae import EarVAE

TOLERANCE = 1e-3
_OPSET = 18
_PARITY_IMAGES = 8
_NEEDS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "safetensors": ("safetensors",)}
_WEIGHTS, _CONFIG = "model.safetensors", "config.json"

Run = Callable[[torch.Tensor], list[np.ndarray]]


@dataclass(frozen=True)
class Port:
    """An input or output: float32, its first axis the batch."""

    name: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Parity:
    """The largest difference from torch over all outputs on this many images."""

    images: int
    max_abs_error: float
    passed: bool


@dataclass(frozen=True)
class Export:
    """What was written."""

    checkpoint: Path
    format: ExportFormat
    part: ExportPart
    path: Path
    bytes: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    parity: Parity


class Reconstructor(nn.Module):
    """Images to their reconstructions."""

    def __init__(self, model: EarVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model.reconstruct(images)


class ImageEncoder(nn.Module):
    """Images to mu and logvar."""

    def __init__(self, model: EarVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.model.encode(images)


class ImageDecoder(nn.Module):
    """Codes to images."""

    def __init__(self, model: EarVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        return self.model.decode(codes)


def export(
    path: str | Path, out: Path, *, format: ExportFormat = "onnx", part: ExportPart = "full"
) -> Export:
    """Write the network, or its encoder or decoder, for another runtime, and check its numbers.

    The written file is run on validation images, or on drawn ears where those are gone, at batch 1
    and at all of them, and compared with torch.

    Raises `EarTeachError` where a package is missing, a foreign file is in the way, or the outputs
    differ by more than 1e-3; nothing is left behind then.
    """
    _check_packages(format)
    path = Path(path)
    found = checkpoint.read(checkpoint.best(path) if path.is_dir() else path)
    model = found.model()
    module = _module(model, part)
    example = _example(found, model, part)
    make_folder(out.parent)
    partial = out.parent / f".earteach-{os.getpid()}.partial"
    write, load = {
        "onnx": (_write_onnx, _load_onnx),
        "safetensors": (_write_safetensors, _load_safetensors),
    }[format]
    try:
        _check_target(out, format)
        write(partial, found, module, part, example)
        parity = _parity(module, load(partial, model, part), example)
        _place(partial, out)
    except OSError as error:
        raise EarTeachError(f"{out}: cannot be written: {error.strerror}") from error
    finally:
        _remove(partial)
    inputs, outputs = _ports(model, part)
    return Export(found.path, format, part, out, _size(out), inputs, outputs, parity)


def _check_packages(format: ExportFormat) -> None:
    missing = [name for name in _NEEDS[format] if find_spec(name) is None]
    if missing:
        raise EarTeachError(
            f"--format {format}: needs {', '.join(missing)}; install them with "
            "`pip install 'earteach[export]'`"
        )


def _check_target(out: Path, format: ExportFormat) -> None:
    if not out.exists():
        return
    ours = _is_our_onnx(out) if format == "onnx" else _is_our_folder(out)
    if not ours:
        raise EarTeachError(
            f"{out}: exists and is no {format} export of earteach; move it away or choose another "
            "--out"
        )


def _is_our_onnx(path: Path) -> bool:
    import onnx

    if not path.is_file():
        return False
    try:
        # Named, or onnx would take a `.json` for text.
        found = onnx.load(path, format="protobuf", load_external_data=False)
        return bool(found.producer_name == "earteach")
    except Exception:  # whatever a foreign file makes the protobuf parser raise
        return False


def _is_our_folder(path: Path) -> bool:
    try:
        about = json.loads((path / _CONFIG).read_text(encoding="utf-8"))
        return isinstance(about, dict) and "earteach" in about
    except (OSError, ValueError):
        return False


def _module(model: EarVAE, part: ExportPart) -> nn.Module:
    module = {"full": Reconstructor, "encoder": ImageEncoder, "decoder": ImageDecoder}[part](model)
    return module.eval()


def _ports(model: EarVAE, part: ExportPart) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    image = ("batch", model.in_channels, model.image_size, model.image_size)
    code = ("batch", model.latent_dim)
    ports = {
        "full": ((Port("images", image),), (Port("reconstructions", image),)),
        "encoder": ((Port("images", image),), (Port("mu", code), Port("logvar", code))),
        "decoder": ((Port("codes", code),), (Port("images", image),)),
    }
    return ports[part]


def _example(found: Checkpoint, model: EarVAE, part: ExportPart) -> torch.Tensor:
    """Images to compare on, or their codes for the decoder."""
    images = _validation_images(found, model)
    if images is None:
        drawn = [draw_ear(0, index, model.image_size).image for index in range(_PARITY_IMAGES)]
        images = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float() / 255
        images = images[:, : model.in_channels]
    if part != "decoder":
        return images
    with torch.inference_mode():
        return model.encode(images)[0].clone()


def _validation_images(found: Checkpoint, model: EarVAE) -> torch.Tensor | None:
    named = found.config.data
    try:
        array = EarArray.open(named.val_data, named.layout)
        batch = next(
            image_batches(
                array,
                size=model.image_size,
                channels=model.in_channels,
                batch_size=_PARITY_IMAGES,
            )
        )
    except EarTeachError:
        return None
    return batch.images


def _parity(module: nn.Module, run: Run, example: torch.Tensor) -> Parity:
    worst = 0.0
    for batch in (example[:1], example):
        with torch.inference_mode():
            expected = module(batch)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for wanted, got in zip(expected, run(batch), strict=True):
            difference = np.abs(wanted.numpy() - got)
            worst = max(worst, float("inf") if np.isnan(difference).any() else difference.max())
    if worst > TOLERANCE:
        raise EarTeachError(
            f"the exported network differs from torch's by {worst:.3g}, more than {TOLERANCE:g}, so "
            "it was removed; report this with `pip list` and the checkpoint's options"
        )
    return Parity(len(example), float(worst), True)


def _write_onnx(
    target: Path, found: Checkpoint, module: nn.Module, part: ExportPart, example: torch.Tensor
) -> None:
    import onnx

    inputs, outputs = _ports(found.model(), part)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own internals
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=_OPSET,
            input_names=[port.name for port in inputs],
            output_names=[port.name for port in outputs],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    proto.producer_name = "earteach"
    proto.producer_version = earteach.__version__
    onnx.helper.set_model_props(proto, {"checkpoint": found.path.name, "part": part})
    onnx.save(proto, target)


def _load_onnx(path: Path, model: EarVAE, part: ExportPart) -> Run:
    import onnxruntime

    # A file name without its real suffix is fine for onnxruntime when it is read as bytes.
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch.numpy()})


def _write_safetensors(
    target: Path, found: Checkpoint, module: nn.Module, part: ExportPart, example: torch.Tensor
) -> None:
    from safetensors.torch import save_file

    model = found.model()
    kept = {
        "full": ("linear.", "encoder.", "decoder."),
        "encoder": ("linear.", "encoder."),
        "decoder": ("linear.", "decoder."),
    }
    weights = {
        name: value.contiguous()
        for name, value in model.state_dict().items()
        if name.startswith(kept[part])
    }
    target.mkdir()
    save_file(weights, target / _WEIGHTS, metadata={"format": "pt", "part": part})
    inputs, outputs = _ports(model, part)
    about: Mapping[str, Any] = {
        "earteach": earteach.__version__,
        "part": part,
        "model": found.config.model.to_dict(),
        "inputs": [asdict(port) for port in inputs],
        "outputs": [asdict(port) for port in outputs],
        "image_range": [0, 1],
        "colour_order": "RGB" if model.in_channels == 3 else "gray",
    }
    (target / _CONFIG).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _load_safetensors(path: Path, model: EarVAE, part: ExportPart) -> Run:
    from safetensors.torch import load_file

    about = json.loads((path / _CONFIG).read_text(encoding="utf-8"))
    loaded = EarVAE.from_config(ModelConfig(**about["model"]))
    loaded.load_state_dict(load_file(path / _WEIGHTS), strict=part == "full")
    module = _module(loaded, part)

    def run(batch: torch.Tensor) -> list[np.ndarray]:
        with torch.inference_mode():
            outputs = module(batch)
        return [out.numpy() for out in (outputs if isinstance(outputs, tuple) else (outputs,))]

    return run


def _place(partial: Path, out: Path) -> None:
    """Move what was written to `out`; in a folder, files of the user's own stay."""
    if out.is_dir():
        for file in partial.iterdir():
            file.replace(out / file.name)
    else:
        partial.replace(out)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    files = [path / _CONFIG, path / _WEIGHTS] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
