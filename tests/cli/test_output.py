"""Results go to stdout, all else to stderr; problems become one line and an exit code."""

from __future__ import annotations

import json
import logging
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from earteach.cli.output import Output, duration, facts, line, note, show_notes, table
from earteach.cli.sharpen import steps_shown
from earteach.errors import EarTeachError
from tests.conftest import earteach


@dataclass(frozen=True)
class Node:
    value: float
    path: Path | None = None
    many: tuple[Node, ...] = ()


def test_a_command_says_each_note_once(capsys):
    logger = logging.getLogger("earteach.inference")
    for _ in range(2):
        show_notes()
        for said in ("slow", "slow", "small", "slow"):
            logger.info(said)
    assert capsys.readouterr().err.splitlines() == ["note: slow", "note: small"] * 2


def test_json_is_one_object_of_plain_unrounded_values(capsys):
    node = Node(1 / 3, Path("a/b"), (Node(1.0),))
    Output(json=True).show({"by_name": {"x": node}, "number": 3, "yes": True}, "a table")
    out, err = capsys.readouterr()
    assert err == ""
    leaf = {"value": 1.0, "path": None, "many": []}
    assert json.loads(out) == {
        "by_name": {"x": {"value": 1 / 3, "path": "a/b", "many": [leaf]}},
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


def test_what_a_terminal_obeys_in_a_name_is_a_question_mark(capsys):
    name = "a\x1b[31m\u202egpj.b"
    Output(json=False).show({}, table(name, "a", rows=[(name,)]))
    line(name)
    out, err = capsys.readouterr()
    assert (out.count("a?[31m?gpj.b"), err) == (2, "a?[31m?gpj.b\n")


@pytest.mark.parametrize("rank", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
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


def test_debugging_shows_the_traceback_of_a_users_problem(monkeypatch):
    failing(monkeypatch, EarTeachError("bad"))
    monkeypatch.setenv("EARTEACH_DEBUG", "1")
    with pytest.raises(EarTeachError, match="bad"):
        earteach("info")


@pytest.mark.parametrize("error", [RuntimeError("a bug"), OSError("a bug")])
def test_a_bug_keeps_its_traceback(monkeypatch, error):
    failing(monkeypatch, error)
    with pytest.raises(type(error), match="a bug"):
        earteach("info")


def test_ctrl_c_exits_with_130(monkeypatch):
    failing(monkeypatch, KeyboardInterrupt())
    result = earteach("info")
    assert (result.code, result.out, result.err) == (130, "", "error: interrupted\n")


@pytest.mark.parametrize("mode", [[], ["--json"]])
def test_awkward_folder_names_are_only_names(trained, tmp_path, mode):
    awkward = tmp_path / "[b]\n[/red]"
    shutil.copytree(trained.checkpoints, awkward)
    args = ["-n", 2, "--checkpoint-dir", awkward, "--out", awkward / "out", *mode]
    result = earteach("sample", *args)
    assert result.code == 0, result.err
    assert len(list((awkward / "out").glob("sample-*.png"))) == 2
    if mode:
        assert result.json["grid"] == str(awkward / "out" / "grid.png")


def test_a_note_says_how_long_sharpening_will_take(monkeypatch, capsys):
    """Of 60 steps, the fourth to sixth take a second each."""
    seconds = iter([100.0, 103.0])
    monkeypatch.setattr("earteach.cli.sharpen.time", SimpleNamespace(monotonic=seconds.__next__))
    shown = steps_shown(None)
    for done in range(61):
        shown(done, 60)
    assert capsys.readouterr().err == "note: 6 of 60 steps; the others will take about 54 s\n"
