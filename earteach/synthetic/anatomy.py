"""The shape of one drawn ear: its anatomical curves, with individual variation, and its pose.

Curves are defined in the anatomical frame: a right-facing ear of height one, x towards the face, y
down, origin in the middle. `pose` maps them to the image, as fractions of the crop. The curves pass
through the 55 landmarks, so a landmark cannot leave the structure that it names.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

FRAME_MARGIN = 0.03
"""Minimum distance of a landmark from the edge of the crop, as a fraction of its side."""


def _points(*xy: tuple[float, float]) -> Array:
    return np.array(xy, np.float32)


_CURVES: dict[str, Array] = {
    # Landmarks 0-19: from the root of the helix over the top, round behind and down to the lobe.
    "outer": _points(
        (0.252, -0.328), (0.172, -0.413), (0.073, -0.473), (-0.041, -0.479), (-0.136, -0.447),
        (-0.214, -0.383), (-0.257, -0.292), (-0.288, -0.199), (-0.287, -0.102), (-0.273, -0.011),
        (-0.254, 0.084), (-0.225, 0.167), (-0.189, 0.249), (-0.141, 0.312), (-0.088, 0.374),
        (-0.034, 0.430), (0.026, 0.476), (0.112, 0.504), (0.186, 0.494), (0.246, 0.448),
    ),
    # Landmarks 20-34: inner edge of the helix, from the crus up, over the scapha and down.
    "inner_rim": _points(
        (0.143, -0.062), (0.156, -0.149), (0.152, -0.242), (0.130, -0.319), (0.068, -0.373),
        (-0.017, -0.387), (-0.102, -0.367), (-0.163, -0.299), (-0.201, -0.221), (-0.213, -0.137),
        (-0.213, -0.058), (-0.201, 0.019), (-0.181, 0.090), (-0.150, 0.156), (-0.097, 0.216),
    ),
    # Landmarks 35-49: down the tragus, through the notch, over the antitragus, up the back of the
    # concha and forward under the inferior crus.
    "concha": _points(
        (0.186, -0.029), (0.170, 0.037), (0.161, 0.109), (0.200, 0.167), (0.201, 0.221),
        (0.135, 0.205), (0.080, 0.152), (0.002, 0.136), (-0.066, 0.103), (-0.099, 0.046),
        (-0.093, -0.023), (-0.058, -0.077), (-0.007, -0.111), (0.064, -0.134), (0.128, -0.152),
    ),
    # Landmarks 50-54: the antihelix, upwards into its superior crus.
    "antihelix": _points(
        (-0.181, -0.044), (-0.166, -0.126), (-0.140, -0.202), (-0.107, -0.267), (-0.070, -0.332),
    ),
    "antihelix_foot": _points((0.014, 0.190), (-0.080, 0.160), (-0.134, 0.076)),
    "antihelix_top": _points((-0.007, -0.354)),
    "inferior_crus": _points(
        (-0.132, -0.171), (-0.077, -0.203), (0.016, -0.192), (0.121, -0.221),
    ),
    "helix_crus": _points(
        (0.011, 0.010), (0.078, -0.022), (0.119, -0.070), (0.182, -0.130), (0.210, -0.224),
    ),
    "tragus": _points((0.189, -0.031), (0.195, 0.031), (0.195, 0.106), (0.220, 0.175)),
    "antitragus": _points((0.124, 0.242), (0.066, 0.193), (-0.011, 0.178)),
    "attachment": _points((0.255, 0.371), (0.260, 0.202), (0.233, 0.009), (0.222, -0.151)),
    "canal": _points((0.154, 0.053), (0.155, 0.004), (0.167, 0.106)),
    "lobe": _points((0.060, 0.355)),
}  # fmt: skip
# The helix lies between these pairs of an outer landmark and an inner one.
_RIM_PAIRS_OUTER = slice(0, 13)
_RIM_PAIRS_INNER = slice(2, 15)


@dataclass(frozen=True)
class Ear:
    """One posed ear. Points and widths are fractions of the crop's side."""

    curves: dict[str, Array]  # with the names of `_CURVES`
    height: float
    to_canonical: Array  # (2, 3): from fractions of the crop back into the anatomical frame

    @property
    def landmarks(self) -> Array:
        return self._joined("outer", "inner_rim", "concha", "antihelix")

    @property
    def helix(self) -> Array:
        """Crest of the helix, from its crus in the concha to where it fades into the lobe."""
        rim = self.curves["outer"][_RIM_PAIRS_OUTER] + self.curves["inner_rim"][_RIM_PAIRS_INNER]
        return np.concatenate([self.curves["helix_crus"], rim / 2])

    @property
    def helix_half_width(self) -> Array:
        across = self.curves["outer"][_RIM_PAIRS_OUTER] - self.curves["inner_rim"][_RIM_PAIRS_INNER]
        rim = np.minimum(np.hypot(across[:, 0], across[:, 1]) / 2, 0.062 * self.height)
        crus = np.array([0.060, 0.050, 0.044, 0.040, 0.040], np.float32) * self.height
        return np.concatenate([crus, rim])

    @property
    def antihelix_crest(self) -> Array:
        return self._joined("antihelix_foot", "antihelix", "antihelix_top")

    def _joined(self, *names: str) -> Array:
        return np.concatenate([self.curves[name] for name in names])


_ENDS = np.cumsum([len(curve) for curve in _CURVES.values()])[:-1]
_LANDMARK_COUNT = 55


def draw_anatomy(rng: np.random.Generator) -> Ear:
    """Draw a random ear in a random pose."""
    curves = {name: curve.copy() for name, curve in _CURVES.items()}
    for vary in (_vary_rim, _vary_lobe, _vary_folds):
        vary(rng, curves)
    return pose(_vary_shape(rng, np.concatenate(list(curves.values()))), rng)


def _vary_rim(rng: np.random.Generator, curves: dict[str, Array]) -> None:
    """A thick or thin helix, sometimes with Darwin's tubercle."""
    rim, outer = curves["inner_rim"], curves["outer"][_RIM_PAIRS_OUTER]
    inner = rim[_RIM_PAIRS_INNER]
    inner += np.float32(rng.uniform(-0.20, 0.18)) * (outer - inner)
    tubercle = rng.uniform(0.0, 1.0) < 0.2
    strength = np.float32(rng.uniform(0.01, 0.025) * tubercle)
    inner[6] += strength * np.array([1.0, 0.4], np.float32)
    outer[6] -= strength * np.array([0.5, 0.2], np.float32)


def _vary_lobe(rng: np.random.Generator, curves: dict[str, Array]) -> None:
    """From a free lobe, rounded up towards the cheek, to an attached one."""
    attached = np.float32(rng.uniform(-0.35, 1.0))
    outer = curves["outer"]
    outer[16:] += attached * _points((0.0, -0.01), (0.0, -0.01), (0.010, 0.012), (0.030, 0.055))


def _vary_folds(rng: np.random.Generator, curves: dict[str, Array]) -> None:
    """Move antihelix and concha forward or back, and let tragus and antitragus protrude."""
    forward = np.float32(rng.uniform(-0.010, 0.028))
    for name in ("antihelix", "antihelix_top"):
        curves[name][:, 0] += forward
    curves["antihelix_foot"][1:, 0] += forward
    curves["inferior_crus"][:2, 0] += forward
    curves["concha"][8:13, 0] += forward
    crus_drop = np.float32(rng.uniform(-0.028, 0.025))
    curves["inferior_crus"][1:, 1] += crus_drop
    curves["concha"][12:, 1] += crus_drop
    curves["inferior_crus"][2:, 1] += np.float32(rng.uniform(-0.025, 0.015))
    jut = np.float32(rng.uniform(-0.02, 0.014))
    curves["concha"][1:4, 0] -= jut * np.array([0.6, 1.0, 0.5], np.float32)
    curves["tragus"][1:, 0] -= jut * np.array([0.6, 1.0, 0.5], np.float32)
    curves["concha"][4:6, 1] += np.float32(rng.uniform(-0.015, 0.025))
    rise = np.float32(rng.uniform(-0.012, 0.012))
    curves["concha"][6, 1] -= rise
    curves["antitragus"][1, 1] -= rise


def _vary_shape(rng: np.random.Generator, points: Array) -> Array:
    """Bend the whole ear smoothly: broad, narrow, pointed, round, long or short in the lobe."""
    x, y = points[:, 0], points[:, 1]
    width, upper, lean = rng.uniform((0.86, -0.18, -0.12), (1.14, 0.16, 0.12))
    point, lobe = rng.uniform((-0.02, -0.12), (0.045, 0.22))
    bent_x = x * (width - upper * y) + lean * y * y
    above = np.clip(-y - 0.25, 0, None) / 0.25
    below = np.clip(y - 0.22, 0, None)
    bent_y = y + lobe * below - point * above**2 * np.exp(-(((x + 0.06) / 0.12) ** 2))
    return np.stack([bent_x, bent_y], 1) + _ripple(rng, points)


def _ripple(rng: np.random.Generator, points: Array) -> Array:
    """A few long random waves, so that no two outlines have the same curvature."""
    waves = rng.uniform(-7.0, 7.0, (4, 2)).astype(np.float32)
    phase = rng.uniform(0.0, 6.28, 4).astype(np.float32)
    amplitude = rng.normal(0.0, 0.007, (4, 2)).astype(np.float32)
    return np.sin(points @ waves.T + phase) @ amplitude


def pose(points: Array, rng: np.random.Generator) -> Ear:
    """Mirror, rotate, shear, scale and shift the ear, keeping its landmarks in the crop."""
    angle = np.radians(np.clip(rng.normal(4.0, 9.0), -20, 20))
    foreshortening, shear = rng.uniform((0.86, -0.12), (1.04, 0.12))
    mirror = rng.choice([-1.0, 1.0])
    target_height = rng.uniform(0.65, 0.95)
    shift = rng.uniform(-1.0, 1.0, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = np.diag([mirror, 1.0]) @ turn @ np.array([[foreshortening, shear], [0.0, 1.0]])
    posed = points @ linear.T
    low, high = posed[:_LANDMARK_COUNT].min(0), posed[:_LANDMARK_COUNT].max(0)
    room = 1 - 2 * FRAME_MARGIN
    scale = min(target_height / (high[1] - low[1]), room / np.max(high - low))
    slack = (room - scale * (high - low)) / 2
    offset = 0.5 - scale * (low + high) / 2 + slack * shift * (1.0, 0.7)
    placed = (posed * scale + offset).astype(np.float32)
    inverse = np.linalg.inv(scale * linear)
    to_canonical = np.column_stack([inverse, -inverse @ offset]).astype(np.float32)
    curves = dict(zip(_CURVES, np.split(placed, _ENDS), strict=True))
    return Ear(curves, float(scale), to_canonical)


def spline(controls: Array, count: int) -> Array:
    """`count` points on the Catmull-Rom curve through the controls, evenly spaced in between."""
    return _spline_weights(len(controls), count) @ controls


@lru_cache(maxsize=256)
def _spline_weights(controls: int, count: int) -> Array:
    """The curve is linear in its controls: these are the weights, (count, controls), cached."""
    position = np.linspace(0, controls - 1, count)
    segment = np.minimum(position.astype(int), controls - 2)
    t = position - segment
    basis = 0.5 * np.stack([
        -t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3,
    ])  # fmt: skip
    weights = np.zeros((count, controls), np.float32)
    rows = np.arange(count)
    for step, weight in zip(range(-1, 3), basis, strict=True):
        np.add.at(weights, (rows, np.clip(segment + step, 0, controls - 1)), weight)
    return weights
