"""Ctrl-C and other signals during a download from a server that never finishes it."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator

import pytest
from command import Command, Faulty, answer, checksum_of, clients, end, names
from services import wait_until

from seamless_remote.cli.statuses import Status

SENT = 8 * 1024 * 1024
SIGNALS = [
    (signal.SIGINT, Status.INTERRUPTED),
    (signal.SIGTERM, Status.TERMINATED),
    (signal.SIGHUP, Status.HANGUP),
]

# Handle the signals even if the tests run in the background of a shell, which ignores SIGINT there.
HEED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
"""
IGNORE = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"


@pytest.fixture
def stuck_server() -> Iterator[Faulty]:
    with Faulty(answer("200 OK", bytes(SENT), length=2 * SENT), hold=True) as server:
        yield server


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_a_signal_in_mid_download_leaves_no_file_and_no_word(
    bare_tool: Command, stuck_server: Faulty, number: int, status: Status
) -> None:
    process = _start(bare_tool, stuck_server, "--output", "out")
    process.send_signal(number)
    ended = end(process)
    assert (ended.status, ended.stdout, ended.stderr) == (status, b"", "")
    assert names(bare_tool.folder) == {"out"}
    assert (bare_tool.folder / "out").read_text() == "old"


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_a_signal_in_mid_download_to_standard_output(
    bare_tool: Command, stuck_server: Faulty, number: int, status: Status
) -> None:
    process = _start(bare_tool, stuck_server)
    process.send_signal(number)
    ended = end(process)
    assert (ended.status, ended.stdout, ended.stderr) == (status, b"", "")


def test_a_signal_while_nobody_reads_the_output(bare_tool: Command) -> None:
    content = bytes(1_000_000)  # more than fits into a pipe
    store = bare_tool.folder / "store"
    store.mkdir()
    (store / checksum_of(content)).write_bytes(content)
    process = bare_tool.start("resolve", checksum_of(content), first=HEED, env=clients(store))
    assert process.stdout is not None
    os.read(process.stdout.fileno(), 1)
    process.send_signal(signal.SIGINT)
    ended = end(process)
    assert (ended.status, ended.stderr) == (Status.INTERRUPTED, "")


def test_a_second_signal_ends_it_at_once_and_as_cleanly(
    bare_tool: Command, stuck_server: Faulty
) -> None:
    process = _start(bare_tool, stuck_server, "--output", "out")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    ended = end(process)
    assert ended.status in (Status.TERMINATED, Status.INTERRUPTED)
    assert ended.stderr == ""
    assert names(bare_tool.folder) == {"out"}


def test_a_signal_that_is_to_be_ignored_is_ignored(
    bare_tool: Command, stuck_server: Faulty
) -> None:
    """`nohup`, and a shell that starts a background job, rely on it."""
    process = _start(bare_tool, stuck_server, "--output", "out", first=IGNORE)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert end(process).status == Status.TERMINATED


# As a recomputation whose code lets nothing end it.
STUCK = """
import threading, time
from seamless_remote.cli import interruption

def fail():
    raise PermissionError("the folder is no longer writable")

interruption.GRACE_SECONDS = 0.1
interruption.Interruption({clean_up}).install()
words = iter(["ready"])
while True:
    try:
        print(next(words, ""), flush=True)
        time.sleep(60)
    except BaseException:
        pass
"""


@pytest.mark.parametrize("clean_up", ["fail", "threading.Event().wait"])
def test_a_clean_up_that_fails_or_hangs_keeps_nothing_from_ending(clean_up: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HEED + STUCK.format(clean_up=clean_up)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.terminate()
    end(process)
    assert process.returncode == Status.TERMINATED


@pytest.mark.parametrize("quiet", [True, False])
def test_a_progress_bar_shows_on_a_terminal_and_not_with_quiet(
    bare_tool: Command, stuck_server: Faulty, quiet: bool
) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    shown = bytearray()

    def read() -> None:
        while True:
            try:
                shown.extend(os.read(ours, 65536))
            except OSError:  # EIO, which Linux returns once the other side is closed
                return

    reader = threading.Thread(target=read)
    reader.start()
    arguments = ("--quiet",) if quiet else ()
    process = _start(bare_tool, stuck_server, *arguments, "--output", "out", stderr=theirs)
    os.close(theirs)
    try:
        if not quiet:
            wait_until(lambda: b"MB [" in shown, what="a progress bar")
    finally:
        process.send_signal(signal.SIGINT)
        ended = end(process)
        reader.join()
        os.close(ours)
    assert ended.status == Status.INTERRUPTED
    assert bool(shown) != quiet


def _start(
    tool: Command,
    server: Faulty,
    *arguments: str,
    first: str = HEED,
    stderr: int = subprocess.PIPE,
) -> subprocess.Popen[bytes]:
    """Start a tool and wait until its download is under way. An old output file exists."""
    to_file = "--output" in arguments
    if to_file:
        (tool.folder / "out").write_text("old")
    process = tool.start(
        "resolve",
        checksum_of(b"whatever"),
        *arguments,
        first=first,
        stderr=stderr,
        env=clients(server.url),
    )
    wait_until(server.sent.is_set, what="the first half of the download")
    if to_file:
        wait_until(
            lambda: any(each.stat().st_size > SENT // 2 for each in tool.folder.glob(".*.part")),
            what="a half-written file",
        )
    return process
