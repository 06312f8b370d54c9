"""The dataclasses of `config.py` as options of the command line.

A command takes option groups as parameters:

    @expanded
    def train(model: ModelConfig, optim: OptimConfig, json: Json = False) -> None: ...

`expanded` gives it a signature for Typer with one option per field, and calls it with the groups.
A `Given[Group]` parameter receives only the options that were given, as a dict.
"""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin

import typer

from earteach.config import (
    Fit,
    Layout,
    OptimConfig,
    OptionField,
    Options,
    read_toml,
    without_lr_peak,
)
from earteach.errors import EarTeachError

Group = TypeVar("Group", bound=Options)


class Given(dict[str, Any], Generic[Group]):
    """`Given[Group]`: the options that were given, by name; the group has none that are `vae_only`."""


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with one parameter per option in place of its option groups."""
    signature = inspect.signature(command, eval_str=True)
    expansions = {name: _expansion(p.annotation) for name, p in signature.parameters.items()}

    @functools.wraps(command)
    def call(**values: Any) -> None:
        for name, expansion in expansions.items():
            if expansion is not None:
                values[name] = expansion.collect(values)
        command(**values)

    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        expansion = expansions[name]
        parameters += expansion.parameters() if expansion else [parameter.replace(kind=_KEYWORD)]
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    # Typer reads the annotations beside the signature.
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    return call


@dataclass(frozen=True)
class _Expansion:
    """The option group of a parameter; with `only_given`, as a dict of the given options."""

    group: type[Options]
    only_given: bool
    fields: list[OptionField]

    def parameters(self) -> list[inspect.Parameter]:
        parameters = []
        for option in self.fields:
            default = None if self.only_given else option.default
            kind: Any = option.type | None if self.only_given else option.type
            # An unset option keeps another run's value, not the default that its help names.
            help = option.help.partition(" Default:")[0] if self.only_given else option.help
            annotation = Annotated[kind, _declared(self.group, option, help, default)]
            parameters.append(_keyword(option.name, annotation, default))
        if self.group is OptimConfig:
            hidden = Annotated[float | None, typer.Option("--lr-peak", hidden=True)]
            parameters.append(_keyword("lr_peak", hidden, None))
        return parameters

    def collect(self, values: dict[str, Any]) -> Options | dict[str, Any]:
        """Take the group's options out of `values`."""
        options = {option.name: values.pop(option.name) for option in self.fields}
        if self.group is OptimConfig:
            options = without_lr_peak(options | {"lr_peak": values.pop("lr_peak")}, note=True)
        if self.only_given:
            return {name: value for name, value in options.items() if value is not None}
        return self.group(**options)


def _expansion(annotation: Any) -> _Expansion | None:
    only_given = get_origin(annotation) is Given
    group = get_args(annotation)[0] if only_given else annotation
    if not (isinstance(group, type) and issubclass(group, Options)):
        return None
    fields = [
        option
        for option in group.option_fields()
        if not option.hidden and not (only_given and option.vae_only)
    ]
    return _Expansion(group, only_given, fields)


_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, _KEYWORD, default=default, annotation=annotation)


def one_of(group: type[Options], name: str) -> Any:
    """A single option of a group, for `Annotated` in a command that takes no other of it."""
    option = next(option for option in group.option_fields() if option.name == name)
    return _declared(group, option, option.help, option.default)


def _declared(group: type[Options], option: OptionField, help: str, default: Any) -> Any:
    choices = list(map(str, option.choices or dict.fromkeys(option.aliases.values())))
    words = ["auto", "ddp"] if option.name == "strategy" else choices
    brackets = "<{}>" if option.aliases else "[{}]"
    return typer.Option(
        help=help,
        rich_help_panel=group.panel,
        metavar=brackets.format("|".join(choices)) if choices else None,
        # Without words, Typer or the shell completes.
        autocompletion=(lambda incomplete: [w for w in words if w.startswith(incomplete)])
        if words
        else None,
        show_default=default is not None,
        parser=functools.partial(_parsed, option) if option.aliases else None,
    )


def _parsed(option: OptionField, text: str) -> str:
    try:
        return str(option.checked(text))
    except EarTeachError as error:
        raise typer.BadParameter(str(error).removeprefix(f"{option.flag} ")) from error


def complete_checkpoint(context: typer.Context, incomplete: str) -> list[str]:
    """The matching checkpoints in the checkpoint folder, but for names that need quotes."""
    folder = Path(context.params.get("checkpoint_dir") or "checkpoints")
    paths = sorted(str(path) for path in folder.glob("*.ckpt"))
    return [path for path in paths if path.startswith(incomplete) and shlex.quote(path) == path]


def _use_toml(context: typer.Context, path: Path | None) -> Path | None:
    """Make a file's values the defaults, so that options on the command line take precedence."""
    if path is not None:
        context.default_map = {**(context.default_map or {}), **read_toml(path)}
    return path


def typed(context: typer.Context, names: Iterable[str]) -> set[str]:
    """Those of the options that come from the command line or a `--config` file."""
    sources = {name: context.get_parameter_source(name) for name in names}
    return {name for name, source in sources.items() if source and source.name != "DEFAULT"}


def ckpt_argument(help: str) -> Any:
    """A checkpoint argument with its own help, for `Annotated`."""
    return typer.Argument(help=help, metavar="CKPT", autocompletion=complete_checkpoint)


Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")
]
Ckpt = Annotated[Path | None, ckpt_argument("A checkpoint. Default: the best in --checkpoint-dir.")]
CheckpointDir = Annotated[
    Path, typer.Option("--checkpoint-dir", help="Folder to search for the checkpoint.")
]
DataArray = Annotated[
    Path | None,
    typer.Option("--data", help="Array of ears; defaults to the checkpoint's validation array."),
]
LayoutChoice = Annotated[
    Layout | None,
    typer.Option("--layout", help="Axis order of an array, if its shape is ambiguous."),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML file of options, with underscores in names; the command line takes precedence.",
        is_eager=True,
        callback=_use_toml,
    ),
]
FastDevRun = Annotated[
    bool,
    typer.Option("--fast-dev-run", help="Run one training and one validation step; write nothing."),
]
Show = Annotated[
    bool, typer.Option("--show", help="Also draw the images in the terminal, in colour.")
]
Seed = Annotated[int, typer.Option("--seed", help="Random seed.", min=0, max=2**63 - 1)]
FitChoice = Annotated[
    Fit,
    typer.Option(
        "--fit",
        help="How to make photographs square: stretch them, or extend the shorter side by "
        "reflecting its edges.",
    ),
]
