"""Standard error and the bar: whatever fails there ends nothing else."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import Command, checksum_of, clients, end, store

from seamless_remote.cli.progress import Progress
from seamless_remote.cli.statuses import Status

CONTENT = b"a buffer\n"
LINES = 3_000
"""Of bars: far more than a terminal holds that nobody reads."""


@dataclass
class Terminal:
    """Both ends of a terminal."""

    ours: int
    theirs: int

    def hang_up(self) -> None:
        os.close(self.ours)
        self.ours = -1


@contextlib.contextmanager
def terminal_as_standard_error() -> Iterator[Terminal]:
    """A terminal of 80 columns, of which nobody reads.

    No fixture: pytest has a standard error of its own again when a fixture is made.
    """
    terminal = Terminal(*pty.openpty())
    fcntl.ioctl(terminal.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = sys.stderr
    try:
        with open(terminal.theirs, "w", closefd=False) as stream:
            sys.stderr = stream
            yield terminal
    finally:
        sys.stderr = before
        os.close(terminal.theirs)
        if terminal.ours >= 0:
            terminal.hang_up()


def _transfer(terminal: Terminal, first: Callable[[Terminal], object] = lambda _: None) -> Progress:
    """A transfer with so many bars that no terminal holds them. `first` happens at its start."""
    progress = Progress("title")
    progress.show()
    first(terminal)
    for number in range(LINES):
        progress.rename(f"{number} of {LINES}")
        progress.advance(1)
    progress.expect(LINES)
    progress.close()
    return progress


def test_a_bar_shows_on_a_terminal() -> None:
    with terminal_as_standard_error() as terminal:
        progress = Progress("title")
        progress.show()
        progress.advance(5 << 20)
        progress.expect(10 << 20)
        shown = b""
        while b"5.00M/10.0M" not in shown:
            shown += os.read(terminal.ours, 65536)
        progress.close()
    assert b"title" in shown


def _stop(terminal: Terminal) -> None:
    termios.tcflow(terminal.theirs, termios.TCOOFF)


def _make_non_blocking(terminal: Terminal) -> None:
    os.set_blocking(terminal.theirs, False)


@pytest.mark.parametrize(
    "first",
    [lambda _: None, _stop, _make_non_blocking, Terminal.hang_up],
    ids=["unread", "stopped by Ctrl-S", "non-blocking", "gone"],
)
def test_no_terminal_holds_a_transfer_up_or_ends_it(
    first: Callable[[Terminal], object],
) -> None:
    with terminal_as_standard_error() as terminal:
        _transfer(terminal, first)
        _transfer(terminal)


@pytest.mark.parametrize("where", ["a full device", "a closed pipe", "closed"])
def test_a_standard_error_that_takes_nothing_changes_no_exit_status(
    tool: Command, store_folder: Path, where: str
) -> None:
    checksum = store(store_folder, CONTENT)
    expected = {
        ("--no-such-option",): Status.USAGE,
        ("nonsense",): Status.MALFORMED_CHECKSUM,
        (checksum_of(b"nowhere"), "--debug"): Status.UNKNOWN_CHECKSUM,
        (checksum, "--verbose"): Status.DONE,
    }
    first = "import os; os.close(2)" if where == "closed" else ""
    for arguments, status in expected.items():
        stderr = _unwritable(where)
        process = tool.start("resolve", *arguments, first=first, stderr=stderr)
        os.close(stderr)
        ended = end(process)
        assert ended.status == status, arguments
        assert ended.stdout == (CONTENT if status is Status.DONE else b"")


@pytest.mark.parametrize("option", ["--help", "--version"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_help_that_cannot_be_written_is_told(tool: Command, option: str, unbuffered: str) -> None:
    with open("/dev/full", "wb") as full:
        ended = tool.resolve(option, stdout=full, env={"PYTHONUNBUFFERED": unbuffered})
    assert ended.status == Status.UNWRITABLE_OUTPUT
    assert "standard output: No space left on device" in ended.line()


def test_a_descriptor_counts_only_if_it_was_open_at_the_start(
    tool: Command, store_folder: Path
) -> None:
    """The tools open some of their own."""
    checksum = store(store_folder, CONTENT)
    unreachable = clients("http://127.0.0.1:9")
    for number in range(3, 12):
        ended = tool.resolve(checksum, "--output", f"/dev/fd/{number}", env=unreachable)
        assert ended.status == Status.UNWRITABLE_OUTPUT
        assert f"descriptor {number} is not open" in ended.line()
    first = "import os; os.dup2(os.open(os.devnull, os.O_RDONLY), 0)"
    ended = tool.resolve(checksum, "--output", "/dev/stdin", first=first, env=unreachable)
    assert ended.status == Status.UNWRITABLE_OUTPUT
    assert "open for reading only" in ended.line()


def _unwritable(where: str) -> int:
    if where != "a closed pipe":
        return os.open("/dev/full", os.O_WRONLY)
    reading, writing = os.pipe()
    os.close(reading)
    return writing
