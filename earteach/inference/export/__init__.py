"""A trained network for other runtimes, with its numbers checked against torch's.

exporter.py     checkpoint to file: write, run, compare, move into place
parts.py        what is exported, with its inputs and outputs
formats.py      the formats: how each is written and run
parity.py       the comparison with torch, and the images for it
quantization.py ONNX with int8 convolutions, and the quality they lose
description.py  the JSON beside an export, and the model card of a safetensors folder
"""

from earteach.inference.export.exporter import Export, export
from earteach.inference.export.parity import Parity, Quantization
from earteach.inference.export.parts import Port

__all__ = ["Export", "Parity", "Port", "Quantization", "export"]
