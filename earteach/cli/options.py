"""From the dataclasses of `config.py` to the command line's options.

A command is a function whose parameters may be typed with option groups:

    @expanded
    def train(model: ModelConfig, optim: OptimConfig, json: Json = False) -> None: ...

`expanded` gives it a signature in which each group stands as one option per field, which Typer reads,
and hands the function the groups. `Given[Group]` takes the options of a group that were typed, as a
dict, and leaves the others out.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Optional, TypeVar, Union, get_args, get_origin

import typer

from earteach.cli import completion
from earteach.config import Fit, Layout, OptionField, Options, read_toml
from earteach.errors import EarTeachError

Group = TypeVar("Group", bound=Options)


class Without(frozenset[str]):
    """`Annotated[Given[Group], Without(["name"])]`: the group without these options."""


class Given(dict[str, Any], Generic[Group]):
    """`Given[Group]`: the group's options that were typed, by name."""


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with its option groups expanded for Typer."""
    signature = inspect.signature(command, eval_str=True)
    groups = {
        name: found
        for name, parameter in signature.parameters.items()
        if (found := _group(parameter.annotation)) is not None
    }

    @functools.wraps(command)
    def call(**values: Any) -> None:
        for name, expansion in groups.items():
            found = {field.name: values.pop(field.name) for field in expansion.fields}
            if expansion.only_given:
                values[name] = Given((k, v) for k, v in found.items() if v is not None)
            else:
                values[name] = expansion.group(**found)
        command(**values)

    parameters = []
    for name, parameter in signature.parameters.items():
        if name in groups:
            expansion = groups[name]
            parameters += [_parameter(expansion, option) for option in expansion.fields]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    # Typer reads the annotations beside the signature.
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    return call


@dataclass(frozen=True)
class _Expansion:
    """The group that a parameter stands for, and whether only its typed options are wanted."""

    group: type[Options]
    only_given: bool
    without: frozenset[str]

    @property
    def fields(self) -> list[OptionField]:
        return [field for field in self.group.option_fields() if field.name not in self.without]


def _group(annotation: Any) -> _Expansion | None:
    without: frozenset[str] = frozenset()
    if get_origin(annotation) is Annotated:
        annotation, *notes = get_args(annotation)
        without = without.union(*(note for note in notes if isinstance(note, Without)))
    only_given = get_origin(annotation) is Given
    candidate = get_args(annotation)[0] if only_given else annotation
    if isinstance(candidate, type) and issubclass(candidate, Options):
        return _Expansion(candidate, only_given, without)
    return None


def one_of(group: type[Options], name: str) -> Any:
    """A single option of a group, for `Annotated` in a command that takes no other of it."""
    option = next(option for option in group.option_fields() if option.name == name)
    return _declared(group, option, show_default=option.default is not None)


def _declared(group: type[Options], option: OptionField, *, show_default: bool) -> Any:
    return typer.Option(
        help=option.opt.help,
        rich_help_panel=group.panel,
        metavar=_metavar(option),
        autocompletion=completion.of_option(option),
        show_default=show_default,
    )


def _parameter(expansion: _Expansion, option: OptionField) -> inspect.Parameter:
    group, only_given = expansion.group, expansion.only_given
    declared = _declared(group, option, show_default=not only_given and option.default is not None)
    optional = only_given and get_origin(option.type) not in (Union, types.UnionType)
    kind = Optional[option.type] if optional else option.type  # noqa: UP045
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None if only_given else option.default,
        annotation=Annotated[kind, declared],
    )


def _metavar(option: OptionField) -> str | None:
    return f"[{'|'.join(map(str, option.opt.choices))}]" if option.opt.choices else None


def _use_toml(context: typer.Context, path: Path | None) -> Path | None:
    """Make a file's values the defaults, so that a flag on the command line wins."""
    if path is not None:
        context.default_map = {**(context.default_map or {}), **read_toml(path)}
    return path


def typed(context: typer.Context, names: Mapping[str, Any]) -> set[str]:
    """Which of the options were typed or came from a `--config` file."""
    unset = {"DEFAULT"}
    return {
        name
        for name in names
        if (source := context.get_parameter_source(name)) is not None and source.name not in unset
    }


Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")
]


def ckpt_argument(help: str) -> Any:
    """A checkpoint, for `Annotated` in a command that says in words of its own what it takes."""
    return typer.Argument(help=help, metavar="CKPT", autocompletion=completion.checkpoints)


Ckpt = Annotated[
    Optional[Path],  # noqa: UP045
    ckpt_argument("A checkpoint; left out, the best in --checkpoint-dir."),
]
CheckpointDir = Annotated[
    Path, typer.Option("--checkpoint-dir", help="Folder in which to find the checkpoint.")
]
LayoutChoice = Annotated[
    Optional[Layout],  # noqa: UP045
    typer.Option("--layout", help="Order of an array's axes, where it cannot be told."),
]
Config = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--config",
        help="TOML file of options, keys spelled with underscores; flags win over it.",
        is_eager=True,
        callback=_use_toml,
        autocompletion=completion.tomls,
    ),
]
FastDevRun = Annotated[
    bool, typer.Option("--fast-dev-run", help="One step of each kind; writes nothing.")
]
Show = Annotated[
    bool,
    typer.Option("--show", help="Draw the pictures in the terminal too, where it has colours."),
]
Seed = Annotated[
    int, typer.Option("--seed", help="Source of the randomness.", min=0, max=2**63 - 1)
]
FitChoice = Annotated[
    Fit,
    typer.Option(
        "--fit",
        help="How a photograph becomes square: both sides scaled, or the shorter one extended by "
        "reflecting its edges.",
    ),
]


def found(ckpt: Path | None, checkpoint_dir: Path) -> Path:
    """The checkpoint that was named, or the folder in which to take the best."""
    if ckpt is not None:
        return ckpt
    if not checkpoint_dir.is_dir():
        raise EarTeachError(
            f"{checkpoint_dir}: no such folder; run `earteach train` first, or name a checkpoint"
        )
    return checkpoint_dir
