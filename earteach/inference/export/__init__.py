"""A trained network for other runtimes, with its numbers checked against torch's.

exporter.py     checkpoint to file: write, run, compare, move into place
parts.py        what is exported, with its inputs and outputs
formats.py      the table of formats; each has a module that writes files and runs them
parity.py       the comparison with torch, and the images for it
quantization.py ONNX with int8 convolutions, and the quality they lose
destination.py  the files of an export, and which existing files may be replaced
description.py  the JSON beside an export
model_card.py   the README.md of a safetensors folder
"""

from earteach.inference.export.exporter import Export, export
from earteach.inference.export.parity import Parity
from earteach.inference.export.parts import Port
from earteach.inference.export.quantization import Quantization

__all__ = ["Export", "Parity", "Port", "Quantization", "export"]
