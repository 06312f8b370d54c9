"""Every option of a training run, written once: name, type, default, help and check.

The command line makes its flags from these dataclasses, `--config FILE` its keys, and a checkpoint
stores them as plain values. In Python:

    >>> config = TrainConfig(model=ModelConfig(image_size=64, base_channels=32))
    >>> config.model.latent_dim
    256
"""

# Annotations stay objects here: as text each would be compiled at every start of the command line.
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from earteach.errors import EarTeachError

Layout = Literal["nhwc", "nchw", "nhw"]
Fit = Literal["stretch", "reflect"]
Strength = Literal["none", "light", "full"]
Target = Literal["clean", "augmented"]
Reduction = Literal["mean", "sum"]
EncoderKind = Literal["attention", "mobile"]
Student = Literal["mobile"]
LRSchedule = Literal["cosine", "plateau"]
Precision = Literal["32", "16", "bf16"]
ExportFormat = Literal["onnx", "torchscript", "torch-export", "safetensors", "openvino"]
ExportPart = Literal["full", "encoder", "decoder", "features"]

# More than this of anything, infinity included, is a mistake, and not every library's integers hold it.
_LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Opt:
    """What an option says beside its name, type and default."""

    help: str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    multiple_of: int | None = None
    choices: tuple[int, ...] = ()

    def problem(self, value: Any) -> str | None:
        """What is wrong with `value`, in words that follow its name, or None."""
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


@dataclass(frozen=True)
class OptionField:
    """One option of a group, resolved: `type` is without its `Annotated` wrapper."""

    name: str
    type: Any
    default: Any
    opt: Opt

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    def checked(self, value: Any) -> Any:
        """`value` as the option's type; `EarTeachError` where it is of another or out of bounds."""
        value = _checked_type(self, value)
        if value is not None and (problem := self.opt.problem(value)):
            raise EarTeachError(f"{self.flag} {value}: {problem}")
        return value


class Options:
    """Base of the option groups: frozen dataclasses that check themselves."""

    panel: ClassVar[str]

    @classmethod
    def option_fields(cls) -> tuple[OptionField, ...]:
        key: Any = cls
        return _option_fields(key)

    def __post_init__(self) -> None:
        for option in self.option_fields():
            value = option.checked(getattr(self, option.name))
            object.__setattr__(self, option.name, value)

    def to_dict(self) -> dict[str, Any]:
        """The options as builtin values, paths as strings."""
        values = ((option.name, getattr(self, option.name)) for option in self.option_fields())
        return {name: str(value) if isinstance(value, Path) else value for name, value in values}


@cache
def _option_fields(group: Any) -> tuple[OptionField, ...]:
    hints = get_type_hints(group, include_extras=True)
    found = []
    for entry in fields(group):
        annotated_type, opt = get_args(hints[entry.name])
        found.append(OptionField(entry.name, annotated_type, entry.default, opt))
    return tuple(found)


def _checked_type(option: OptionField, value: Any) -> Any:
    """`value` as the option's type, or an error; an int passes for a float and a str for a Path."""
    expected = option.type
    if get_origin(expected) in (Union, types.UnionType):
        if value is None:
            return None
        expected = next(t for t in get_args(expected) if t is not type(None))
    if get_origin(expected) is Literal:
        choices = get_args(expected)
        if str(value) not in choices:
            raise EarTeachError(f"{option.flag} {value}: must be one of {', '.join(choices)}")
        return str(value)
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        # What no float may hold is said to be too large.
        return float(value) if abs(value) <= _LARGEST else value
    if expected is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        kind = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
        raise EarTeachError(f"{option.flag} {value!r}: must be {kind.get(expected, 'text')}")
    return value


@dataclass(frozen=True, kw_only=True)
class DataConfig(Options):
    """Where the images are and what happens to them before the network sees them."""

    panel: ClassVar[str] = "Data"

    train_data: Annotated[Path, Opt("Training images, a .npy array.")] = Path(
        "data/preprocessed/train_teacher.npy"
    )
    val_data: Annotated[Path, Opt("Validation images, a .npy array.")] = Path(
        "data/preprocessed/val_teacher.npy"
    )
    layout: Annotated[
        Layout | None,
        Opt("Order of the arrays' axes, where it cannot be told from their shape."),
    ] = None
    augmentation: Annotated[
        Strength,
        Opt("How much training images are varied: `inspect-data --augmented` shows it."),
    ] = "light"
    target: Annotated[
        Target,
        Opt(
            "What is reconstructed: the image without the noise, blur and occlusion of --augmentation "
            "full, or with them."
        ),
    ] = "augmented"


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Options):
    """The network."""

    panel: ClassVar[str] = "Model"

    in_channels: Annotated[int, Opt("3 for colour, 1 for gray.", choices=(1, 3))] = 3
    latent_dim: Annotated[int, Opt("Numbers in a latent code.", at_least=1, at_most=2**16)] = 256
    base_channels: Annotated[
        int,
        Opt(
            "Channels of the first block; the last has 8 times as many.", at_least=1, at_most=2**12
        ),
    ] = 64
    image_size: Annotated[
        int, Opt("Side of the square images in pixels.", at_least=32, at_most=2**12, multiple_of=16)
    ] = 256
    pca_init: Annotated[
        bool,
        Opt("Begin as PCA of ears turned to one side, and learn what that lacks; else from noise."),
    ] = True
    encoder: Annotated[
        EncoderKind,
        Opt("`mobile` is small and fast; with eigenears (--pca-init) `earteach distil` trains it."),
    ] = "attention"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent_dim == 1 and self.pca_init:
            raise EarTeachError(
                "--latent-dim 1: with --pca-init the only number would be the ear's side; take 2 or "
                "more, or add --no-pca-init"
            )


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Options):
    """How long and how the weights are trained."""

    panel: ClassVar[str] = "Optimisation"

    epochs: Annotated[int, Opt("Passes over the training images.", at_least=1)] = 200
    batch_size: Annotated[int, Opt("Images in a step, on each device.", at_least=1)] = 32
    learning_rate: Annotated[float, Opt("Learning rate of AdamW.", above=0, at_most=10)] = 1e-4
    weight_decay: Annotated[float, Opt("Weight decay of AdamW.", at_least=0, at_most=10)] = 1e-5
    ssim_weight: Annotated[
        float,
        Opt("Weight of 1 − SSIM, which training lowers beside the loss; 0 for none.", at_least=0),
    ] = 0.02
    lr_schedule: Annotated[
        LRSchedule,
        Opt(
            "`cosine` rises to a peak and falls until the last step; `plateau` halves the rate when "
            "the validation loss stays."
        ),
    ] = "cosine"
    lr_peak: Annotated[
        float, Opt("Peak of `cosine`, as a multiple of the learning rate.", above=0, at_most=1000)
    ] = 20.0
    lr_warmup_steps: Annotated[int, Opt("Steps in which `cosine` rises.", at_least=0)] = 100
    ema_decay: Annotated[
        float,
        Opt(
            "Decay of the moving average of the weights, which is what is kept; 0 for none.",
            at_least=0,
            at_most=0.99999,
        ),
    ] = 0.995
    gradient_clip: Annotated[
        float, Opt("Largest norm of the gradient; 0 leaves it unclipped.", at_least=0)
    ] = 1.0
    patience: Annotated[
        int, Opt("Epochs without a better validation loss before training stops.", at_least=1)
    ] = 30


@dataclass(frozen=True, kw_only=True)
class KLDConfig(Options):
    """The weight of the Kullback-Leibler divergence, and how it is annealed over the epochs."""

    panel: ClassVar[str] = "KLD and its annealing"

    kld_weight: Annotated[float, Opt("Weight of the KLD in the loss.", at_least=0)] = 0.00025
    kld_reduction: Annotated[
        Reduction,
        Opt("Whether the loss takes the KLD per latent dimension or summed over them."),
    ] = "mean"
    kld_anneal_strategy: Annotated[
        Literal["cyclic", "linear", "monotonic"], Opt("How the weight rises over the epochs.")
    ] = "cyclic"
    kld_anneal_cycles: Annotated[int, Opt("Cycles of `cyclic`.", at_least=1)] = 4
    kld_anneal_ratio: Annotated[
        float, Opt("Share of a cycle in which the weight rises.", above=0, at_most=1)
    ] = 0.5
    kld_anneal_epochs: Annotated[
        int | None, Opt("Epochs over which it rises; then it holds. Left out: all.", at_least=1)
    ] = None
    kld_anneal_start: Annotated[
        float, Opt("Share of the weight at the beginning.", at_least=0, at_most=1)
    ] = 0.0
    kld_anneal_end: Annotated[
        float, Opt("Share of the weight at the end.", at_least=0, at_most=1)
    ] = 1.0


@dataclass(frozen=True, kw_only=True)
class HardwareConfig(Options):
    """What the run is computed on; the only options besides the length that a resume may change."""

    panel: ClassVar[str] = "Hardware"

    accelerator: Annotated[
        Literal["auto", "gpu", "cpu", "tpu"], Opt("What the network runs on.")
    ] = "auto"
    devices: Annotated[int, Opt("Devices on each node; -1 takes all.", at_least=-1)] = 1
    num_nodes: Annotated[int, Opt("Nodes of the cluster.", at_least=1)] = 1
    strategy: Annotated[str, Opt("Lightning's strategy for several devices, such as ddp.")] = "auto"
    precision: Annotated[Precision, Opt("Arithmetic of the network; the weights stay float32.")] = (
        "32"
    )
    num_workers: Annotated[
        int, Opt("Processes that load images, never more than there are cores.", at_least=0)
    ] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.devices == 0:
            raise EarTeachError("--devices 0: must be at least 1, or -1 for all devices")


@dataclass(frozen=True, kw_only=True)
class RunConfig(Options):
    """Where a run is kept and where its randomness comes from."""

    panel: ClassVar[str] = "Run"

    checkpoint_dir: Annotated[Path, Opt("Folder of the checkpoints.")] = Path("checkpoints")
    log_dir: Annotated[Path, Opt("Folder of TensorBoard's logs.")] = Path("logs")
    checkpoint_every_n_steps: Annotated[
        int | None,
        Opt("Write last.ckpt inside long epochs too, after this many steps.", at_least=1),
    ] = None
    seed: Annotated[
        int, Opt("Source of all randomness of the run.", at_least=0, at_most=2**63 - 1)
    ] = 42


@dataclass(frozen=True, kw_only=True)
class InferenceConfig(Options):
    """What a trained network is run on."""

    panel: ClassVar[str] = "Hardware"

    accelerator: Annotated[Literal["auto", "gpu", "cpu"], Opt("What the network runs on.")] = "auto"
    precision: Annotated[Precision | None, Opt("Arithmetic; left out: as it was trained.")] = None
    batch_size: Annotated[int, Opt("Images at a time.", at_least=1)] = 32


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that `train` can be told, in groups."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    kld: KLDConfig = field(default_factory=KLDConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The groups as nested dicts of builtin values, as a checkpoint keeps them."""
        return {name: getattr(self, name).to_dict() for name in GROUPS}

    @classmethod
    def from_dict(cls, values: Mapping[str, Mapping[str, Any]]) -> Self:
        """The configuration that `to_dict` gave; raises `EarTeachError` for unknown or bad values."""
        try:
            groups: dict[str, Any] = {name: group(**values[name]) for name, group in GROUPS.items()}
            return cls(**groups)
        except (KeyError, TypeError) as error:
            raise EarTeachError(
                f"a configuration of another version of earteach: {error}"
            ) from error

    def with_options(self, changes: Mapping[str, Any]) -> Self:
        """A copy in which each option named in `changes` has its new value.

        Raises `EarTeachError` for a name that is no option, and for a value out of bounds.
        """
        known = {option.name for _, option, _ in self.options()}
        if unknown := sorted(changes.keys() - known):
            raise EarTeachError(
                f"{unknown[0]}: is no option of training; the names are those of `earteach train "
                "--help`, with underscores"
            )
        groups: dict[str, Any] = {
            name: replace(getattr(self, name), **_of_group(group, changes))
            for name, group in GROUPS.items()
        }
        return type(self)(**groups)

    def options(self) -> Iterator[tuple[str, OptionField, Any]]:
        """Every option as (group, field, value)."""
        for name, group in GROUPS.items():
            for option in group.option_fields():
                yield name, option, getattr(getattr(self, name), option.name)


GROUPS: dict[str, type[Options]] = {
    "data": DataConfig,
    "model": ModelConfig,
    "optim": OptimConfig,
    "kld": KLDConfig,
    "hardware": HardwareConfig,
    "run": RunConfig,
}


def _of_group(group: type[Options], changes: Mapping[str, Any]) -> dict[str, Any]:
    names = {option.name for option in group.option_fields()}
    return {name: value for name, value in changes.items() if name in names}


def read_toml(path: Path) -> dict[str, Any]:
    """The options in a TOML file: keys spelled as the flags with underscores, no sections.

    Raises `EarTeachError` for a file that cannot be read, an unknown key or a value out of bounds.
    """
    import tomllib  # only here: most commands read no such file

    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EarTeachError(f"--config {path}: {error.strerror}; name a readable file") from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # also a number of too many digits, lists too deep
        raise EarTeachError(f"--config {path}: not TOML: {error}") from error
    known = {option.name: option for _, option, _ in TrainConfig().options()}
    for key, value in values.items():
        if isinstance(value, dict):
            raise EarTeachError(
                f"--config {path}: has a section [{key}]; write its keys without one"
            )
        if key not in known:
            raise EarTeachError(
                f"--config {path}: unknown key {key!r}; the keys are the options of "
                "`earteach train --help` with underscores"
            )
        try:
            values[key] = known[key].checked(value)
        except EarTeachError as error:
            raise EarTeachError(f"--config {path}: {error}") from error
    return values
