"""Every option that a run's checkpoint keeps, written once: name, type, default, help and check.

The command line makes its flags from these dataclasses, `--config FILE` its keys, and a checkpoint
stores them as plain values. In Python:

    >>> config = TrainConfig(model=ModelConfig(image_size=64, base_channels=32))
    >>> config.model.latent_dim
    256
"""

# Annotations stay objects here: as text each would be compiled at every start of the command line.
import logging
import reprlib
import types
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from earteach.errors import EarTeachError

Layout = Literal["nhwc", "nchw", "nhw"]
Fit = Literal["stretch", "reflect"]
Strength = Literal["none", "light", "full"]
Target = Literal["clean", "augmented"]
Reduction = Literal["mean", "sum"]
EncoderKind = Literal["attention", "mobile"]
Student = Literal["mobile"]
LRSchedule = Literal["cosine", "plateau"]
Annealing = Literal["cyclic", "linear", "monotonic"]
Precision = Literal["32", "16", "bf16"]
ExportFormat = Literal["onnx", "torchscript", "torch-export", "safetensors", "openvino"]
ExportPart = Literal["full", "encoder", "decoder", "features", "landmarks"]
Sampler = Literal["gmm", "blend", "prior"]

# The network that comes with the package; it learned from drawn ears.
DRAWN = "drawn"
# Those of the iBUG ear scheme.
DRAWN_LANDMARKS = 55
# After 320 steps of training on 1,020 drawn ears, 80, 160 and 480 of these made nothing better.
SHARPEN_STEPS = 2400
# Lightning's, torch's and other names. Those that say `true` of half precision mean something else.
_PRECISIONS = {
    "32-true": "32", "fp32": "32", "float32": "32", "16-mixed": "16", "fp16": "16", "float16": "16",
    "bf16-mixed": "bf16", "bfloat16": "bf16",
}  # fmt: skip
# A larger number of anything, infinity included, is a mistake, and some libraries' integers overflow.
_LARGEST = 2**31 - 1
_log = logging.getLogger(__name__)


def option(default: Any, help: str, **bounds: Any) -> Any:
    """A field of an option group; `bounds` are those of `OptionField`."""
    return field(default=default, metadata={"help": help, **bounds})


@dataclass(frozen=True)
class OptionField:
    """One option of a group, with its help and bounds."""

    name: str
    type: Any
    default: Any
    _: KW_ONLY
    help: str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    multiple_of: int | None = None
    choices: tuple[int, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)  # choices as other tools call them
    vae_only: bool = False  # whether it means something for `train` alone, not for `distil`
    hidden: bool = False  # whether only checkpoints have it: nobody can type it

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    def checked(self, value: Any) -> Any:
        """`value` as the option's type; raises `EarTeachError` where it is wrong or out of bounds."""
        value = _checked_type(self, value)
        if value is not None and (problem := self._problem(value)):
            raise EarTeachError(f"{self.flag} {value}: {problem}")
        return value

    def _problem(self, value: Any) -> str | None:
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(map(str, self.choices))}"
        # Written as `not >=` so that NaN fails too.
        if self.at_least is not None and not value >= self.at_least:
            return f"must be at least {self.at_least}"
        if self.above is not None and not value > self.above:
            return f"must be greater than {self.above}"
        at_most = _LARGEST if self.at_most is None else self.at_most
        if isinstance(value, int | float) and not value <= at_most:
            return f"must be at most {at_most}"
        if self.multiple_of and value % self.multiple_of:
            return f"must be a multiple of {self.multiple_of}"
        return None


class Options:
    """Base of the option groups: frozen dataclasses that check their values."""

    panel: ClassVar[str]

    def __init_subclass__(cls, panel: str) -> None:
        cls.panel = panel

    @classmethod
    @cache
    def option_fields(cls) -> tuple[OptionField, ...]:
        hints = get_type_hints(cls)
        group: Any = cls
        return tuple(
            OptionField(entry.name, hints[entry.name], entry.default, **entry.metadata)
            for entry in fields(group)
        )

    def __post_init__(self) -> None:
        for option in self.option_fields():
            value = option.checked(getattr(self, option.name))
            object.__setattr__(self, option.name, value)

    def to_dict(self) -> dict[str, Any]:
        """The options as builtin values, paths as strings."""
        values = ((option.name, getattr(self, option.name)) for option in self.option_fields())
        return {name: str(value) if isinstance(value, Path) else value for name, value in values}


def _checked_type(option: OptionField, value: Any) -> Any:
    """`value` as the option's type, or an error; a float may be given as int, a Path as str."""
    expected = option.type
    if get_origin(expected) in (Union, types.UnionType):
        if value is None:
            return None
        expected = get_args(expected)[0]
    if get_origin(expected) is Literal:
        choices = get_args(expected)
        # In a damaged checkpoint the value may be nested, and its text endless.
        said = str(value) if isinstance(value, str | int) else reprlib.repr(value)
        chosen = option.aliases.get(said, said)
        if chosen not in choices:
            raise EarTeachError(f"{option.flag} {said}: must be one of {', '.join(choices)}")
        return chosen
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        # Converting a huge int would overflow; the bounds reject it.
        return float(value) if abs(value) <= _LARGEST else value
    if expected is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        kind = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
        raise EarTeachError(
            f"{option.flag} {reprlib.repr(value)}: must be {kind.get(expected, 'text')}"
        )
    return value


@dataclass(frozen=True, kw_only=True)
class DataConfig(Options, panel="Data"):
    """Where the images are, and how they are varied before training."""

    train_data: Path = option(
        Path("data/preprocessed/train_teacher.npy"),
        "Training images, a .npy array, or a pattern such as 'data/*/train_teacher.npy'.",
    )
    val_data: Path = option(
        Path("data/preprocessed/val_teacher.npy"),
        "Validation images, a .npy array or a pattern.",
    )
    layout: Layout | None = option(None, "Axis order of the arrays, if their shape is ambiguous.")
    augmentation: Strength = option(
        "light",
        "How strongly to augment training images; `inspect-data --augmented` shows examples.",
    )
    target: Target = option(
        "augmented",
        "Reconstruct images with (`augmented`) or without (`clean`) the noise, blur and occlusion "
        "of --augmentation full.",
        vae_only=True,
    )


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Options, panel="Model"):
    """The network."""

    in_channels: int = option(3, "Image channels: 3 for colour, 1 for gray.", choices=(1, 3))
    latent_dim: int = option(256, "Dimensions of the latent code.", at_least=1, at_most=2**16)
    base_channels: int = option(
        64, "Channels of the first block; the last has 8 times as many.", at_least=1, at_most=2**12
    )
    image_size: int = option(
        256,
        "Height and width to which images are resized, in pixels.",
        at_least=32,
        at_most=2**12,
        multiple_of=16,
    )
    pca_init: bool = option(
        True,
        "Start from a PCA of the training images and learn the residual, or start from random "
        "weights.",
    )
    encoder: EncoderKind = option(
        "attention",
        "Encoder architecture; `mobile` is small and fast (with --pca-init, use `earteach distil` "
        "to train it).",
    )
    pyramid_channels: int = option(
        64,
        "Channels of the feature pyramid, which the teaching objective trains; 0 leaves it out.",
        at_least=0,
        at_most=2**12,
    )
    residual_input: bool = option(
        False, "Whether the encoder also sees the PCA residual, as in version 1.", hidden=True
    )
    landmarks: int = option(
        DRAWN_LANDMARKS,
        "Landmarks that the network finds: those of drawn ears, or of those it learned from later.",
        at_least=0,
        at_most=2**12,
        hidden=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent_dim == 1 and self.pca_init:
            raise EarTeachError(
                "--latent-dim 1: with --pca-init the only dimension would be the ear's side; use 2 or "
                "more, or add --no-pca-init"
            )


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Options, panel="Optimisation"):
    """How long and how the weights are trained."""

    epochs: int = option(200, "Passes over the training images.", at_least=1, at_most=10**6)
    batch_size: int = option(32, "Images per step on each device.", at_least=1)
    learning_rate: float | None = option(
        None,
        "Peak learning rate of AdamW. Default: 2e-3 for `cosine`, 1e-4 for `plateau`.",
        above=0,
        at_most=10,
    )
    weight_decay: float = option(1e-5, "Weight decay of AdamW.", at_least=0, at_most=10)
    ssim_weight: float = option(
        0.02,
        "Weight of 1 − SSIM in the training objective; 0 disables it.",
        at_least=0,
        vae_only=True,
    )
    teach_weight: float = option(
        0.1,
        "Weight of the teaching objective, which makes features recognise the same point of an ear "
        "under other poses, colours and blur; 0 disables it.",
        at_least=0,
        vae_only=True,
    )
    lr_schedule: LRSchedule = option(
        "cosine",
        "`cosine` warms up to the peak, then decays until the last step; `plateau` halves the rate "
        "when the validation loss stops falling.",
    )
    lr_warmup_steps: int = option(
        100, "Steps over which `cosine` warms up, at most a tenth of the run.", at_least=0
    )
    ema_decay: float = option(
        0.995,
        "Decay of the moving average of the weights; validation and all commands use the "
        "averaged weights. 0 disables it.",
        at_least=0,
        at_most=0.99999,
    )
    gradient_clip: float = option(
        1.0, "Maximum norm of the gradient; 0 disables clipping.", at_least=0
    )
    patience: int = option(
        30, "Epochs without a lower validation loss before training stops.", at_least=1
    )

    @property
    def default_learning_rate(self) -> float:
        return 2e-3 if self.lr_schedule == "cosine" else 1e-4

    @property
    def peak_learning_rate(self) -> float:
        return self.learning_rate or self.default_learning_rate


@dataclass(frozen=True, kw_only=True)
class KLDConfig(Options, panel="KLD and its annealing"):
    """The weight of the Kullback-Leibler divergence, and its annealing schedule."""

    kld_weight: float = option(0.00025, "Weight of the KLD in the loss.", at_least=0)
    kld_reduction: Reduction = option("mean", "Average or sum the KLD over the latent dimensions.")
    kld_anneal_strategy: Annealing = option("cyclic", "How the KLD weight rises over the epochs.")
    kld_anneal_cycles: int = option(4, "Number of cycles (`cyclic` only).", at_least=1)
    kld_anneal_ratio: float = option(
        0.5, "Fraction of each cycle in which the weight rises (`cyclic` only).", above=0, at_most=1
    )
    kld_anneal_epochs: int | None = option(
        None,
        "Epochs that the schedule spans; later epochs use the final weight. Default: all epochs.",
        at_least=1,
    )
    kld_anneal_start: float = option(
        0.0, "Fraction of --kld-weight at the start.", at_least=0, at_most=1
    )
    kld_anneal_end: float = option(
        1.0, "Fraction of --kld-weight at the end.", at_least=0, at_most=1
    )


@dataclass(frozen=True, kw_only=True)
class HardwareConfig(Options, panel="Hardware"):
    """What the run is computed on; besides the length, the only options that a resume can change."""

    accelerator: Literal["auto", "gpu", "cpu", "tpu"] = option("auto", "Device type to train on.")
    devices: int = option(1, "Devices per node; -1 uses all.", at_least=-1)
    num_nodes: int = option(1, "Number of nodes.", at_least=1)
    strategy: str = option("auto", "Lightning's strategy for multi-device training, such as ddp.")
    precision: Precision = option(
        "32", "Floating-point precision; the weights stay float32.", aliases=_PRECISIONS
    )
    num_workers: int = option(
        4, "Processes that load images; limited to the number of cores.", at_least=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.devices == 0:
            raise EarTeachError("--devices 0: must be at least 1, or -1 for all devices")


@dataclass(frozen=True, kw_only=True)
class RunConfig(Options, panel="Run"):
    """Where a run is written, its random seed, and what follows training."""

    checkpoint_dir: Path = option(Path("checkpoints"), "Folder for checkpoints.")
    log_dir: Path = option(Path("logs"), "Folder for TensorBoard logs.")
    checkpoint_every_n_steps: int | None = option(
        None, "Also write last.ckpt every N steps within an epoch.", at_least=1
    )
    seed: int = option(42, "Random seed of the whole run.", at_least=0, at_most=2**63 - 1)
    sharpen_steps: int | None = option(
        None,
        "Steps of a second decoder, for sharper new ears, after training; 0 leaves it out. Default: "
        f"{SHARPEN_STEPS:,}, and none after a shorter training or one on several devices.",
        at_least=0,
    )


@dataclass(frozen=True, kw_only=True)
class InferenceConfig(Options, panel="Hardware"):
    """How a trained network is run."""

    accelerator: Literal["auto", "gpu", "cpu"] = option("auto", "Device type to run on.")
    precision: Precision | None = option(
        None, "Floating-point precision. Default: that of training.", aliases=_PRECISIONS
    )
    batch_size: int = option(32, "Images per batch.", at_least=1)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All options of `train`, in groups."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    kld: KLDConfig = field(default_factory=KLDConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        """Leave out the pyramid and the landmarks where nothing trains them.

        Raises `EarTeachError` where something would, and there is no pyramid.
        """
        if self.optim.teach_weight and not self.model.pyramid_channels:
            raise EarTeachError(
                f"--teach-weight {self.optim.teach_weight:g}: needs a feature pyramid; add "
                "--teach-weight 0, or leave out --pyramid-channels 0"
            )
        if self.optim.teach_weight == 0 and self.model.pyramid_channels:
            model = replace(self.model, pyramid_channels=0, landmarks=0)
            object.__setattr__(self, "model", model)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The groups as nested dicts of builtin values, as a checkpoint stores them."""
        return {name: getattr(self, name).to_dict() for name in GROUPS}

    @classmethod
    def from_dict(cls, values: Mapping[str, Mapping[str, Any]]) -> Self:
        """The inverse of `to_dict`, also for the configurations of version 1.0.

        Raises `EarTeachError` for unknown names and bad values.
        """
        try:
            of_1_0 = "pyramid_channels" not in values["model"]
            groups: dict[str, Any] = {
                name: group(**without_lr_peak(values[name])) for name, group in GROUPS.items()
            }
            if of_1_0:
                groups["model"] = ModelConfig(**model_options(values["model"]))
                groups["optim"] = replace(groups["optim"], teach_weight=0.0)
            return cls(**groups)
        except (KeyError, TypeError) as error:
            reason = " ".join(str(error).split())  # it shows names as they are
            raise EarTeachError(
                f"a configuration of another version of earteach: {reason}"
            ) from error

    def with_options(self, changes: Mapping[str, Any]) -> Self:
        """A copy with new values for the options named in `changes`.

        Raises `EarTeachError` for an unknown name or a bad value.
        """
        known = {option.name for _, option, _ in self.options()}
        if unknown := sorted(changes.keys() - known):
            raise EarTeachError(
                f"{unknown[0]}: is not a training option; `earteach train --help` lists them "
                "(write underscores for hyphens)"
            )
        groups: dict[str, Any] = {
            name: replace(
                getattr(self, name), **{k: v for k, v in changes.items() if hasattr(group, k)}
            )
            for name, group in GROUPS.items()
        }
        return type(self)(**groups)

    def options(self) -> Iterator[tuple[str, OptionField, Any]]:
        """Every option as (group, field, value)."""
        for name, group in GROUPS.items():
            for option in group.option_fields():
                yield name, option, getattr(getattr(self, name), option.name)

    def resolved_options(self) -> dict[str, Any]:
        """Every option's value by its name, with the learning rate that an unset one stands for."""
        values = {option.name: value for _, option, value in self.options()}
        return values | {"learning_rate": self.optim.peak_learning_rate}


GROUPS: dict[str, type[Options]] = get_type_hints(TrainConfig)


def model_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a network; those of version 1 had no pyramid, and their encoder the residual."""
    return {
        "pyramid_channels": 0,
        "landmarks": 0,
        "residual_input": values["pca_init"] and values.get("encoder") != "mobile",
        **values,
    }


def without_lr_peak(values: Mapping[str, Any], *, note: bool = False) -> dict[str, Any]:
    """Options of version 1.0 as today's: `cosine` then peaked at `learning_rate` · `lr_peak`.

    `note` logs the option to use instead.
    """
    converted = dict(values)
    lr_peak = converted.pop("lr_peak", None)
    if lr_peak is not None and converted.get("lr_schedule") in (None, "cosine"):
        converted["learning_rate"] = (converted.get("learning_rate") or 1e-4) * lr_peak
        if note:
            rate = converted["learning_rate"]
            _log.info("--lr-peak will be removed: use --learning-rate %g instead", rate)
    return converted


def read_toml(path: Path) -> dict[str, Any]:
    """The options in a TOML file: keys are flags with underscores, in no section.

    Raises `EarTeachError` for a file that cannot be read, an unknown key or a bad value.
    """
    import tomllib  # here, as most commands read no such file

    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise EarTeachError(f"--config {path}: {error.strerror}; name a readable file") from error
    except (ValueError, RecursionError) as error:  # also numbers too long, lists nested too deeply
        raise EarTeachError(f"--config {path}: not TOML: {error}") from error
    known = {option.name: option for _, option, _ in TrainConfig().options() if not option.hidden}
    known["lr_peak"] = _LR_PEAK
    for key, value in values.items():
        try:
            if isinstance(value, dict):
                raise EarTeachError(f"has a section [{key}]; write its keys without one")
            if key not in known:
                raise EarTeachError(
                    f"unknown key {key!r}; the keys are the options of `earteach train --help` with "
                    "underscores"
                )
            values[key] = known[key].checked(value)
        except EarTeachError as error:
            raise EarTeachError(f"--config {path}: {error}") from error
    return without_lr_peak(values, note=True)


# An option of version 1.0, accepted for one release.
_LR_PEAK = OptionField("lr_peak", float | None, None, help="", above=0, at_most=1000)
