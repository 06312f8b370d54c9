"""What is seen on a terminal: a pseudo-terminal takes its place."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios

import numpy as np
import pytest
from rich.console import Console

import earteach
from earteach import checkpoint
from earteach.cli.output import Output, facts, half_blocks, replace_unprintable, sparkline
from earteach.images import write_png
from tests.conftest import TINY, data_options, run_options

LONG = [
    *TINY, "--batch-size", "4", "--num-workers", "0", "--augmentation", "none", "--epochs", "400",
]  # fmt: skip
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(args, columns=80, react=None):
    """Exit code and all that came; `react` gets what came so far and the terminal to type into."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.pop("NO_COLOR", None)
        os.environ.pop("COLUMNS", None)
        os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
        os.execv(sys.executable, [sys.executable, "-m", "earteach", *args])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    came = b""
    while True:
        try:
            some = os.read(terminal, 65536)
        except OSError:  # Linux says so that the other side has closed
            break
        came += some
        if react is not None:
            react(came, terminal)
    os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code, came.decode()


@pytest.mark.slow
def test_ctrl_c_on_a_terminal_keeps_the_run(ears, tmp_path):
    typed = []

    def stop(came: bytes, terminal: int) -> None:
        if b"epoch 2/400 " in came and b"images/s" in came and not typed:
            typed.append(os.write(terminal, b"\x03"))

    args = ["train", *data_options(ears), *run_options(tmp_path), *LONG]
    code, came = on_a_terminal(args, react=stop)
    assert code == 130
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert checkpoint.read(last).global_step > 10  # the steps of the first epoch
    assert earteach.load(last).latent_dim == 16
    text = ESCAPE.sub("", came).replace("^C", "")  # which the terminal shows where it is typed
    lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
    # A line for the first epoch, whole, beside the bar that was redrawn; nothing is cut in two.
    assert re.search(r"epoch 1/400 +[━╸╺ ]*\d+/\d+ .*left", text)
    assert any(line.startswith("epoch 1/400  loss 0.") for line in lines)
    assert f"continue with `earteach resume {last}`" in "".join(lines)
    assert [line for line in lines if "━" in line and len(line) > 80] == []
    # The cursor that the bar hides is there again.
    assert came.count("\x1b[?25h") >= came.count("\x1b[?25l")


def cells(text: str) -> list[tuple[int, ...]]:
    """Colours above and below of each half block."""
    return [
        tuple(map(int, found))
        for found in re.findall(r"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▀", text)
    ]


def test_pictures_are_drawn_in_half_blocks(tmp_path):
    """Through the printer itself: 6 by 4 pixels, as large as they are."""
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    write_png(tmp_path / "ear.png", image)
    console = Console(force_terminal=True, color_system="truecolor", width=80, _environ={})
    with console.capture() as capture:
        console.print(half_blocks(tmp_path / "ear.png", 80))
    expected = [
        (*image[row, column].tolist(), *image[row + 1, column].tolist())
        for row in (0, 2)
        for column in range(6)
    ]
    assert cells(capture.get()) == expected
    with console.capture() as capture:
        console.print(half_blocks(tmp_path / "ear.png", 3))
    assert [len(cells(line)) for line in capture.get().splitlines()] == [3]


@pytest.mark.parametrize(("encoding", "bars"), [("ascii", "_.-=+*%#"), ("utf-8", "▁▂▃▄▅▆▇█")])
def test_another_encoding_is_no_obstacle(monkeypatch, encoding, bars):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding))
    replace_unprintable()
    values = {"β": sparkline(range(8)), "name": "odd \udcff.png"}
    Output(json=False).show({}, facts("64×64", values))
    text = written.getvalue().decode(encoding)
    assert bars in text
    assert ("β" in text) == (encoding == "utf-8")
    assert "odd ?.png" in text


def test_without_a_terminal_nothing_is_folded(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS")
    path = "folder/" * 60
    Output(json=False).show({}, facts("T", {"in": path}))
    assert path in capsys.readouterr().out
