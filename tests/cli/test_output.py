"""The output: exact, complete, and written nowhere else."""

from __future__ import annotations

import contextlib
import os
import pty
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from command import Command, Ended, checksum_of, clients, end, names, store

from seamless_remote.cli.statuses import Status

BINARY = bytes(range(256)) * 1000
TEXT = "Grüße, 世界\n".encode() * 20_000

# Simulates a full disk for one process: no file can grow beyond this size.
SMALL_DISK = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
"""

# Simulates a disk that fails when the kernel writes the data back, after `write` has succeeded.
BROKEN_DISK = """
import errno, os
def fsync(descriptor):
    raise OSError(errno.EIO, os.strerror(errno.EIO))
os.fsync = fsync
"""


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", TEXT, BINARY, os.urandom(9_000_000)])
@pytest.mark.parametrize("to_file", [True, False])
def test_exactly_the_bytes_come_out(
    tool: Command, store_folder: Path, content: bytes, to_file: bool
) -> None:
    checksum = store(store_folder, content)
    ended = tool.resolve(checksum, *(("--output", "out") if to_file else ()))
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.stdout == (b"" if to_file else content)
    if to_file:
        assert (tool.folder / "out").read_bytes() == content
    assert names(tool.folder) == ({"out"} if to_file else set())


def test_what_seamless_knows_by_heart_needs_no_store(tool: Command) -> None:
    assert tool.resolve(checksum_of(b"[]\n")).stdout == b"[]\n"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_of_any_new_file(
    tool: Command, store_folder: Path, umask: int
) -> None:
    first = f"import os; os.umask({umask})"
    tool.resolve(store(store_folder, TEXT), "--output", "out", first=first)
    assert stat.S_IMODE((tool.folder / "out").stat().st_mode) == 0o666 & ~umask


def test_a_replaced_file_keeps_its_mode(tool: Command, store_folder: Path) -> None:
    (tool.folder / "out").write_text("old")
    (tool.folder / "out").chmod(0o600)
    assert tool.resolve(store(store_folder, TEXT), "--output", "out").status == 0
    assert stat.S_IMODE((tool.folder / "out").stat().st_mode) == 0o600
    assert (tool.folder / "out").read_bytes() == TEXT


def test_a_symbolic_link_stays_and_its_target_is_replaced(
    tool: Command, store_folder: Path, tmp_path: Path
) -> None:
    """As with `curl -o` and `cp`."""
    target = tmp_path / "elsewhere" / "target"
    target.parent.mkdir()
    target.write_text("old")
    link = tool.folder / "link"
    link.symlink_to(target)
    assert tool.resolve(store(store_folder, TEXT), "--output", "link").status == 0
    assert link.is_symlink()
    assert target.read_bytes() == TEXT
    assert names(target.parent) == {"target"}


def test_a_dangling_link_gets_its_target(tool: Command, store_folder: Path) -> None:
    (tool.folder / "link").symlink_to("target")
    assert tool.resolve(store(store_folder, TEXT), "--output", "link").status == 0
    assert (tool.folder / "link").is_symlink()
    assert (tool.folder / "target").read_bytes() == TEXT


def test_an_existing_file_survives_an_unknown_checksum(tool: Command) -> None:
    (tool.folder / "out").write_text("old")
    ended = tool.resolve(checksum_of(b"nowhere"), "--output", "out")
    assert ended.status == Status.UNKNOWN_CHECKSUM
    assert (tool.folder / "out").read_text() == "old"
    assert names(tool.folder) == {"out"}


def test_wrong_bytes_never_come_out(tool: Command, store_folder: Path) -> None:
    checksum = store(store_folder, BINARY)
    (store_folder / checksum).write_bytes(BINARY[:-1] + b"!")
    (tool.folder / "out").write_text("old")
    for arguments in ((checksum,), (checksum, "--output", "out")):
        ended = tool.resolve(*arguments)
        assert (ended.status, ended.stdout) == (Status.UNKNOWN_CHECKSUM, b"")
        assert "holds wrong bytes" in ended.stderr
    assert (tool.folder / "out").read_text() == "old"
    assert names(tool.folder) == {"out"}


@pytest.mark.parametrize("output", ["no/such/out", "folder", "folder/", "new/", "file/out", ""])
def test_an_impossible_output_is_refused_before_any_transfer(tool: Command, output: str) -> None:
    (tool.folder / "folder").mkdir()
    (tool.folder / "file").touch()
    unreachable = clients("http://127.0.0.1:9")
    ended = tool.resolve(checksum_of(TEXT), "--output", output, env=unreachable)
    assert ended.status == Status.UNWRITABLE_OUTPUT
    assert "cannot write" in ended.line()
    assert names(tool.folder) == {"folder", "file"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_without_permission_is_refused(tool: Command, store_folder: Path) -> None:
    (tool.folder / "out").write_text("old")
    (tool.folder / "out").chmod(0o400)
    ended = tool.resolve(store(store_folder, TEXT), "--output", "out")
    assert ended.status == Status.UNWRITABLE_OUTPUT
    assert "Permission denied" in ended.line()


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tool: Command, store_folder: Path
) -> None:
    (tool.folder / "out").write_text("old")
    ended = tool.resolve(store(store_folder, BINARY), "--output", "out", first=SMALL_DISK)
    assert ended.status == Status.UNWRITABLE_OUTPUT
    assert "cannot write out: File too large" in ended.line()
    assert (tool.folder / "out").read_text() == "old"
    assert names(tool.folder) == {"out"}


def test_an_existing_file_is_not_replaced_by_what_the_disk_did_not_take(
    tool: Command, store_folder: Path
) -> None:
    (tool.folder / "out").write_text("old")
    ended = tool.resolve(store(store_folder, BINARY), "--output", "out", first=BROKEN_DISK)
    assert ended.status == Status.UNWRITABLE_OUTPUT
    assert "cannot write out: Input/output error" in ended.line()
    assert (tool.folder / "out").read_text() == "old"
    assert names(tool.folder) == {"out"}


def test_a_full_temporary_folder_is_named(tool: Command, store_folder: Path) -> None:
    ended = tool.resolve(store(store_folder, os.urandom(5_000_000)), first=SMALL_DISK)
    assert (ended.status, ended.stdout) == (Status.UNWRITABLE_OUTPUT, b"")
    assert f"temporary files to {tool.folder}" in ended.line()


@pytest.mark.parametrize("explicit", [True, False])
def test_a_full_device_is_one_clear_line(tool: Command, store_folder: Path, explicit: bool) -> None:
    checksum = store(store_folder, TEXT)
    if explicit:
        ended = tool.resolve(checksum, "--output", "/dev/full")
    else:
        with open("/dev/full", "wb") as full:
            ended = tool.resolve(checksum, stdout=full)
    assert ended.status == Status.UNWRITABLE_OUTPUT
    assert "No space left on device" in ended.line()


def test_dev_null_swallows_everything_and_stays(tool: Command, store_folder: Path) -> None:
    before = os.stat("/dev/null")
    assert tool.resolve(store(store_folder, TEXT), "--output", "/dev/null").status == 0
    after = os.stat("/dev/null")
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)


@pytest.mark.parametrize("output", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_has_several_names(tool: Command, store_folder: Path, output: str) -> None:
    """A regular file as standard output is written to and not replaced."""
    checksum = store(store_folder, TEXT)
    assert tool.resolve(checksum, "--output", output).stdout == TEXT
    with open(tool.folder / "out", "wb") as file:
        file.write(b"before\n")
        file.flush()
        assert tool.resolve(checksum, "--output", output, stdout=file).status == 0
    assert (tool.folder / "out").read_bytes() == b"before\n" + TEXT


def test_a_named_pipe_is_written_to(tool: Command, store_folder: Path) -> None:
    pipe = tool.folder / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    ended = tool.resolve(store(store_folder, TEXT), "--output", "pipe")
    with contextlib.suppress(OSError):
        # If the tool has not opened the pipe, release the reader, which waits for that.
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    reader.join()
    assert (ended.status, received) == (0, [TEXT])
    assert pipe.is_fifo()


def test_a_closed_standard_output_is_an_error_and_gets_nothing(
    tool: Command, store_folder: Path
) -> None:
    """The next socket must not become descriptor 1 and receive the data."""
    checksum = store(store_folder, TEXT)
    ended = tool.resolve(checksum, first="import os; os.close(1)")
    assert ended.status == Status.UNWRITABLE_OUTPUT
    assert "standard output is closed" in ended.line()


def test_a_reader_that_goes_away_ends_the_tool_quietly(tool: Command, store_folder: Path) -> None:
    process = tool.start("resolve", store(store_folder, BINARY * 10))
    assert process.stdout is not None
    assert process.stdout.read(1) == BINARY[:1]
    process.stdout.close()
    process.stdout = None
    ended = end(process)
    assert (ended.status, ended.stderr) == (Status.CLOSED_PIPE, "")


def test_a_non_blocking_standard_output_gets_everything(tool: Command, store_folder: Path) -> None:
    ended = tool.resolve(store(store_folder, BINARY), first="import os; os.set_blocking(1, False)")
    assert (ended.status, ended.stdout) == (0, BINARY)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (TEXT, Status.DONE),
        (b"\x1b[1mbold\x1b[0m\n", Status.DONE),
        (("x" + "ß" * 8000).encode(), Status.DONE),  # the sample ends within a character
        (BINARY, Status.BINARY_TO_TERMINAL),
        (b"abc\0def", Status.BINARY_TO_TERMINAL),
        (b"gr\xfc\xdfe\n", Status.BINARY_TO_TERMINAL),
        (b"cut \xc3", Status.BINARY_TO_TERMINAL),
    ],
)
def test_a_terminal_gets_text_only(
    tool: Command, store_folder: Path, content: bytes, status: Status
) -> None:
    ended, shown = _on_a_terminal(tool, store(store_folder, content))
    assert ended.status == status
    if status is Status.DONE:
        assert shown.replace(b"\r\n", b"\n") == content
    else:
        assert shown == b""
        assert "--output FILE" in ended.line()


def test_a_terminal_gets_binary_data_on_request(tool: Command, store_folder: Path) -> None:
    ended, shown = _on_a_terminal(tool, store(store_folder, b"a\0b"), "--output", "-")
    assert (ended.status, shown) == (0, b"a\0b")


def _on_a_terminal(tool: Command, *arguments: str) -> tuple[Ended, bytes]:
    """Run `seamless-resolve` on a terminal; returns its end and what the terminal got."""
    ours, theirs = pty.openpty()
    shown = bytearray()

    def read() -> None:
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # EIO, which Linux returns once the other side is closed
                return
            shown.extend(piece)

    reader = threading.Thread(target=read)
    try:
        process = tool.start("resolve", *arguments, stdout=theirs)
        os.close(theirs)
        reader.start()
        ended = end(process)
        reader.join()
    finally:
        os.close(ours)
    return ended, bytes(shown)


def test_nothing_is_left_in_the_temporary_folder(tool: Command, store_folder: Path) -> None:
    assert tool.resolve(store(store_folder, os.urandom(6_000_000)), stdout=subprocess.DEVNULL)
    assert names(tool.folder) == set()
