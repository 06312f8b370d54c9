"""The settings of a benchmark; equal settings make rows comparable."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from earteach.config import Precision
from earteach.errors import EarTeachError

# In the order of the table.
MODELS = ("pca", "vae", "autoencoderkl", "earteach")
FREE = ("train", "val")  # paths may change: arrays are identified by their fingerprints
# Files in a model's folder.
SETTINGS_FILE, ROW_FILE, SHEET_FILE = "settings.json", "row.json", "sheet.npy"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that the figures depend on.

    At `points` moments `curve_images` of each validation array are measured, at the end all of them.
    `samples` new ears are compared with as many real ones.
    """

    train: Path
    val: dict[str, Path]
    minutes: float
    latent_dim: int = 256
    base_channels: int = 32
    image_size: int = 64
    batch_size: int = 32
    threads: int = 2
    workers: int | None = None  # None: earteach's own default
    precision: Precision = "bf16"
    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"
    vae_learning_rate: float = 1e-3
    kl_learning_rate: float = 1e-3
    peer_ssim_weight: float = 0.0
    points: int = 12
    curve_images: int = 500
    samples: int = 1000
    seed: int = 42
    earteach_options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("minutes", "threads", "points", "curve_images", "batch_size"):
            if not getattr(self, name) > 0:
                raise EarTeachError(
                    f"--{name.replace('_', '-')} {getattr(self, name)}: must be greater than 0"
                )
        if not self.val:
            raise EarTeachError("--val: none given; name at least one, as --val wild=V.npy")

    @classmethod
    def names(cls) -> set[str]:
        return {field.name for field in fields(cls)}

    @property
    def seconds(self) -> float:
        return self.minutes * 60

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        values["train"] = str(self.train)
        values["val"] = {name: str(path) for name, path in self.val.items()}
        values["earteach_options"] = list(self.earteach_options)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """The inverse of `to_dict`."""
        return cls(
            **{
                **values,
                "train": Path(values["train"]),
                "val": {name: Path(path) for name, path in values["val"].items()},
                "earteach_options": tuple(values["earteach_options"]),
            }
        )

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Settings:
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))


def named_array(text: str) -> tuple[str, Path]:
    """`name=path` as (name, path); a path alone is named after its file.

    Raises `EarTeachError` for a name that cannot be a heading.
    """
    name, separator, path = text.partition("=")
    if not separator:
        name, path = Path(text).stem, text
    if not re.fullmatch(r"[\w-]+", name) or not path:
        raise EarTeachError(f"--val {text}: write it as NAME=PATH, NAME of letters and digits")
    return name, Path(path)


def due_times(settings: Settings) -> list[float]:
    """The times of the curve's points in seconds: denser at the start, the last at the end."""
    return [
        settings.seconds * (point / settings.points) ** 1.5
        for point in range(1, settings.points + 1)
    ]
