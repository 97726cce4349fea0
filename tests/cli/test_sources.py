"""The sources of the buffer, and what the tools report if they fail."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from command import (
    Command,
    Faulty,
    answer,
    checksum_of,
    clients,
    names,
    upload,
)
from services import Service

from seamless_remote.cli.statuses import Status

CONTENT = b"some text\n" * 100_000
MEGABYTE = 1024 * 1024
BIG = 256 * MEGABYTE
MARGIN = 40 * MEGABYTE


def test_a_hashserver_gives_a_buffer(bare_tool: Command, shared_hashserver: Service) -> None:
    env = clients(shared_hashserver.url)
    ended = bare_tool.resolve(upload(shared_hashserver, CONTENT), env=env)
    assert (ended.status, ended.stdout, ended.stderr) == (0, CONTENT, "")


def test_a_buffer_that_is_only_there_compressed(
    bare_tool: Command, hashserver: Callable[..., Service], store_folder: Path
) -> None:
    checksum = checksum_of(CONTENT)
    (store_folder / f"{checksum}.zst").write_bytes(zstandard.compress(CONTENT))
    service = hashserver(store_folder, layout="flat")
    for source in (service.url, store_folder):
        ended = bare_tool.resolve(checksum, env=clients(source))
        assert (ended.status, ended.stdout) == (0, CONTENT)


def test_an_unknown_checksum_names_what_was_asked(
    bare_tool: Command, shared_hashserver: Service, store_folder: Path
) -> None:
    checksum = checksum_of(b"nobody has this")
    ended = bare_tool.resolve(checksum, env=clients(store_folder, shared_hashserver.url))
    assert (ended.status, ended.stdout) == (Status.UNKNOWN_CHECKSUM, b"")
    for part in (checksum, str(store_folder), shared_hashserver.url):
        assert part in ended.line()


def test_an_unreachable_service_is_one_line(bare_tool: Command) -> None:
    ended = bare_tool.resolve(checksum_of(CONTENT), env=clients("http://127.0.0.1:9"))
    assert (ended.status, ended.stdout) == (Status.UNREACHABLE, b"")
    assert "http://127.0.0.1:9" in ended.line()
    assert "Connection refused" in ended.line()


def test_another_source_makes_up_for_one_that_is_away(
    bare_tool: Command, shared_hashserver: Service
) -> None:
    env = clients("http://127.0.0.1:9", shared_hashserver.url)
    assert bare_tool.resolve(upload(shared_hashserver, CONTENT), env=env).stdout == CONTENT


def test_a_refusal_is_one_line_without_control_characters(bare_tool: Command) -> None:
    with Faulty(answer("403 Forbidden", b"not \x1b[31m\nfor you")) as server:
        ended = bare_tool.resolve(checksum_of(CONTENT), env=clients(server.url))
    assert (ended.status, ended.stdout) == (Status.REFUSED, b"")
    assert "403" in ended.line()
    assert "not \\x1b[31m for you" in ended.line()


def test_a_service_that_breaks_off_leaves_nothing(bare_tool: Command) -> None:
    (bare_tool.folder / "out").write_text("old")
    with Faulty(answer("200 OK", b"half", length=8)) as server:
        ended = bare_tool.resolve(checksum_of(CONTENT), "--output", "out", env=clients(server.url))
    assert ended.status == Status.UNREACHABLE
    assert (bare_tool.folder / "out").read_text() == "old"
    assert names(bare_tool.folder) == {"out"}


def test_bytes_of_a_failed_source_do_not_stay_before_those_of_the_next(
    bare_tool: Command, shared_hashserver: Service
) -> None:
    checksum = upload(shared_hashserver, CONTENT)
    with Faulty(answer("200 OK", CONTENT[:-5] + b"wrong")) as server:
        env = clients(server.url, shared_hashserver.url)
        ended = bare_tool.resolve(checksum, env=env)
    assert (ended.status, ended.stdout) == (0, CONTENT)
    assert "wrong bytes" in ended.line()


# The peak memory of this process alone: that of `wait4` includes the parent's memory at the fork.
TELL_PEAK = """
import atexit, sys
def tell():
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(line.split()[1], file=sys.stderr)
atexit.register(tell)
"""


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("to_file", [True, False])
@pytest.mark.parametrize("served", [True, False])
def test_memory_does_not_grow_with_the_buffer(
    bare_tool: Command,
    hashserver: Callable[..., Service],
    store_folder: Path,
    compressed: bool,
    to_file: bool,
    served: bool,
) -> None:
    source: str | Path = hashserver(store_folder, layout="flat").url if served else store_folder
    peaks = []
    for size in (MEGABYTE, BIG):
        checksum = _store_large(store_folder, size, compressed)
        ended = bare_tool.resolve(
            checksum,
            *(("--output", "out") if to_file else ()),
            first=TELL_PEAK,
            stdout=subprocess.DEVNULL,
            env=clients(source),
        )
        assert ended.status == 0
        peaks.append(int(ended.line()) * 1024)
    print(peaks)
    assert peaks[1] - peaks[0] < MARGIN


def _store_large(folder: Path, size: int, compressed: bool) -> str:
    """Store a large buffer in a buffer folder, piece by piece; returns its checksum."""
    piece = os.urandom(MEGABYTE)
    checksum = hashlib.sha256()
    path = folder / "new"
    with contextlib.ExitStack() as files:
        file: Any = files.enter_context(open(path, "wb"))
        if compressed:
            file = files.enter_context(zstandard.ZstdCompressor(level=1).stream_writer(file))
        for _ in range(size // MEGABYTE):
            checksum.update(piece)
            file.write(piece)
    path.rename(folder / (checksum.hexdigest() + (".zst" if compressed else "")))
    return checksum.hexdigest()
