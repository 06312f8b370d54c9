"""A trained network for other runtimes, its numbers checked against torch's.

checked.py      the one way from a checkpoint to a file: write, run, compare, place
parts.py        what is exported: the whole network, a side of it, or its maps
parity.py       the images that are compared on, and the comparison
sidecar.py      the JSON beside a file, which tells whose it is and how to use it
formats.py      the list of formats; each has a module of its own, with its writer and its runner
quantization.py ONNX in 8 bits, and what that costs
"""

from earteach.inference.export.checked import Export, export
from earteach.inference.export.parity import Parity
from earteach.inference.export.parts import Port
from earteach.inference.export.quantization import Quantization

__all__ = ["Export", "Parity", "Port", "Quantization", "export"]
