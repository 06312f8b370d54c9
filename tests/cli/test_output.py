"""Results go to stdout, all else to stderr; problems become one line and an exit code."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

from earteach.cli.output import Output, duration, facts, line, note, show_notes, table
from earteach.errors import EarTeachError
from tests.conftest import earteach


@dataclass(frozen=True)
class Inner:
    value: float
    path: Path | None


@dataclass(frozen=True)
class Outer:
    inner: Inner
    many: tuple[Inner, ...]
    by_name: dict[str, Inner]
    number: int = 3
    yes: bool = True


def test_a_command_says_each_note_once(capsys):
    logger = logging.getLogger("earteach.inference")
    for _ in range(2):
        show_notes()
        for said in ("slow", "slow", "small", "slow"):
            logger.info(said)
    assert capsys.readouterr().err.splitlines() == ["note: slow", "note: small"] * 2


def test_json_is_one_object_of_plain_unrounded_values(capsys):
    inner = Inner(1 / 3, Path("a/b"))
    Output(json=True).show(Outer(inner, (inner,), {"x": Inner(1.0, None)}), "a table")
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {
        "inner": {"value": 1 / 3, "path": "a/b"},
        "many": [{"value": 1 / 3, "path": "a/b"}],
        "by_name": {"x": {"value": 1.0, "path": None}},
        "number": 3,
        "yes": True,
    }


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_does_not_exist_is_null(capsys, value):
    Output(json=True).show({"psnr": value, "many": [value, 1.5]})
    assert capsys.readouterr().out == '{"psnr": null, "many": [null, 1.5]}\n'


def test_tables_go_to_stdout(capsys):
    parts = (table("Ears", "name", "PSNR", rows=[("left", "20 dB")]), facts("All", {"a": "b"}))
    Output(json=False).show({}, *parts, "and more")
    out, err = capsys.readouterr()
    assert err == ""
    for word in ("Ears", "name", "PSNR", "left", "20 dB", "All", "a", "b", "and more"):
        assert word in out


def test_a_title_wider_than_its_table_is_left_whole(capsys):
    path = "a/long/path/" * 30
    Output(json=False).show({}, table(path, "a", rows=[("b",)]), facts(path, {"a": "b"}))
    assert capsys.readouterr().out.splitlines().count(path) == 2


@pytest.mark.parametrize("name", ["[b]", "[/b]", "[red]x", "a[/]b", "[link=x]"])
def test_names_that_look_like_markup_are_shown_as_they_are(capsys, name):
    Output(json=False).show({}, table(f"T {name}", "a", rows=[(name,)]))
    Output(json=False).show({}, facts(f"F {name}", {"a": name}))
    line(f"line {name}")
    note(f"note {name}")
    out, err = capsys.readouterr()
    assert out.count(name) == 4
    assert err.splitlines() == [f"line {name}", f"note: note {name}"]


@pytest.mark.parametrize("rank", ["RANK", "LOCAL_RANK", "NODE_RANK"])
def test_only_the_main_process_speaks(capsys, monkeypatch, rank):
    monkeypatch.setenv(rank, "1")
    Output(json=True).show({"a": 1})
    Output(json=False).show({"a": 1}, "a table")
    note("a note")
    line("a line")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (42.4, "42 s"), (59.4, "59 s"), (60, "1 min 00 s"),
     (190, "3 min 10 s"), (3599.6, "1 h 00 min"), (7500, "2 h 05 min")],
)  # fmt: skip
def test_durations_are_words(seconds, text):
    assert duration(seconds) == text


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let the core of `earteach info` raise."""

    def fail() -> NoReturn:
        raise error

    monkeypatch.setattr("earteach.environment.describe", fail)


@pytest.mark.parametrize("text", ["bad value 3: take 4", "a\nb\tc", "[b]bold[/b] [/]", "x" * 500])
def test_a_users_problem_is_one_line(monkeypatch, text):
    failing(monkeypatch, EarTeachError(text))
    result = earteach("info")
    assert (result.code, result.out) == (1, "")
    assert result.err == f"error: {' '.join(text.split())}\n"


@pytest.mark.parametrize("mode", [[], ["--json"]])
def test_debugging_shows_the_traceback_of_a_users_problem(monkeypatch, mode):
    failing(monkeypatch, EarTeachError("bad"))
    monkeypatch.setenv("EARTEACH_DEBUG", "1")
    with pytest.raises(EarTeachError, match="bad"):
        earteach("info", *mode)


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ValueError("a bug"), OSError("a bug")])
def test_a_bug_keeps_its_traceback(monkeypatch, error):
    failing(monkeypatch, error)
    with pytest.raises(type(error), match="a bug"):
        earteach("info")


CORES: list[tuple[str, list[str]]] = [
    ("earteach.environment.describe", ["info"]),
    ("earteach.inference.evaluate.evaluate", ["eval", "x.ckpt"]),
    ("earteach.inference.sample.sample", ["sample", "x.ckpt", "--out", "o"]),
    ("earteach.data.prepare.prepare_drawn", ["prepare", "--synthetic", "2", "--out", "o"]),
    ("earteach.inspection.inspect_data", ["inspect-data", "x.npy"]),
]


@pytest.mark.parametrize("mode", [[], ["--json"]])
@pytest.mark.parametrize(("core", "args"), CORES)
def test_ctrl_c_exits_with_130(monkeypatch, core, args, mode):
    def interrupt(*_: Any, **__: Any) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(core, interrupt)
    result = earteach(*args, *mode)
    assert (result.code, result.out) == (130, "")
    assert "interrupted" in result.err
    assert "Traceback" not in result.err


@pytest.fixture
def awkward(trained, tmp_path):
    """A run's best checkpoint in a folder whose name is awkward to print."""
    folder = tmp_path / "[b]\n[/red]"
    folder.mkdir(parents=True)
    best = Path(trained.result["best"]["loss"]["path"])
    (folder / best.name).write_bytes(best.read_bytes())
    return folder


@pytest.mark.parametrize("mode", [[], ["--json"]])
def test_awkward_folder_names_are_only_names(awkward, mode):
    args = ["-n", 2, "--checkpoint-dir", awkward, "--out", awkward / "out", *mode]
    result = earteach("sample", *args)
    assert result.code == 0, result.err
    assert len(list((awkward / "out").glob("sample-*.png"))) == 2
    if mode:
        assert result.json["grid"] == str(awkward / "out" / "grid.png")
