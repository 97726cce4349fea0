"""Recomputing buffers that no source has."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import Command, clients, end, names, store
from services import Home, Service, wait_until
from test_signals import HEED

from seamless_remote.cli.statuses import Status

MAKE = r"""
import os, sys
import seamless, seamless_config
buffers, database = sys.argv[1:3]
seamless_config.set_remote_clients({
    "buffer": [{"url": buffers, "readonly": False}],
    "database": [{"url": database, "readonly": False}],
})
from seamless.transformer import delayed

CODE
make.scratch = True
transformation = make(1000)
transformation.run()
print("\nresult", transformation.result_checksum)
seamless.close()
"""

NOISY = """
@delayed
def make(length):
    import os, sys
    print("printed by the code")
    os.system("echo printed by a child process")
    os.write(1, b"written to descriptor 1")
    return "x" * length
"""

FAILING = """
@delayed
def make(length):
    import os
    if "FAIL" in os.environ:
        raise ZeroDivisionError("on purpose")
    return "y" * length
"""

SLOW = """
@delayed
def make(length):
    import os, pathlib, time
    if "MARK" in os.environ:
        pathlib.Path(os.environ["MARK"]).touch()
        time.sleep(3600)
    return "z" * length
"""


@dataclass
class Scratch:
    """The tools, with a database that knows a scratch result and a hashserver without it."""

    tool: Command
    buffers: Service
    checksum: str


Make = Callable[[str], Scratch]


@pytest.fixture
def make(
    home: Home,
    hashserver: Callable[..., Service],
    database: Callable[..., Service],
    tmp_path: Path,
) -> Make:
    """A function that runs a scratch transformation with the given code."""
    buffers, results = hashserver(), database()

    def made(code: str) -> Scratch:
        done = home.run(
            MAKE.replace("CODE", code),
            arguments=[buffers.url, results.url],
            warnings=("default",),
        )
        (checksum,) = [
            line.split()[1] for line in done.stdout.splitlines() if line.startswith("result ")
        ]
        env = clients(buffers.url, database=results.url, readonly=False)
        return Scratch(Command(tmp_path / "work", env), buffers, checksum)

    return made


@pytest.mark.parametrize("to_file", [True, False])
def test_a_scratch_result_is_recomputed_and_prints_of_its_code_stay_out(
    make: Make, to_file: bool
) -> None:
    made = make(NOISY)
    refused = made.tool.resolve(made.checksum)
    assert refused.status == Status.UNKNOWN_CHECKSUM
    assert "seamless-fingertip" in refused.line()
    ended = made.tool.fingertip(made.checksum, *(("--output", "out") if to_file else ()))
    assert ended.status == 0
    content = (made.tool.folder / "out").read_bytes() if to_file else ended.stdout
    assert content == b'"' + b"x" * 1000 + b'"\n'
    for text in ("printed by the code", "printed by a child process", "written to descriptor 1"):
        assert text in ended.stderr
    if to_file:
        assert ended.stdout == b""


def test_a_buffer_that_is_there_is_not_recomputed(tool: Command, store_folder: Path) -> None:
    ended = tool.fingertip(store(store_folder, b"kept"))
    assert (ended.status, ended.stdout, ended.stderr) == (0, b"kept", "")


def test_code_that_fails_is_an_unknown_checksum_and_debug_shows_why(make: Make) -> None:
    made = make(FAILING)
    (made.tool.folder / "out").write_text("old")
    ended = made.tool.fingertip(made.checksum, "--output", "out", env={"FAIL": "1"})
    assert ended.status == Status.UNKNOWN_CHECKSUM
    assert "cannot be recomputed" in ended.stderr.splitlines()[-1]
    assert names(made.tool.folder) == {"out"}
    assert (made.tool.folder / "out").read_text() == "old"
    debug = made.tool.fingertip(made.checksum, "--debug", env={"FAIL": "1"})
    assert debug.status == Status.UNKNOWN_CHECKSUM
    assert "on purpose" in debug.stderr


def test_nothing_that_made_it_is_an_unknown_checksum(make: Make) -> None:
    made = make(NOISY)
    ended = made.tool.fingertip("0" * 64)
    assert ended.status == Status.UNKNOWN_CHECKSUM
    assert "the database knows no transformation that produced it" in ended.line()


def test_no_database_is_an_unknown_checksum(tool: Command) -> None:
    ended = tool.fingertip("0" * 64)
    assert ended.status == Status.UNKNOWN_CHECKSUM
    assert "no database is configured" in ended.line()


def test_an_unreachable_database_is_told_from_an_empty_one(
    bare_tool: Command, store_folder: Path
) -> None:
    env = clients(store_folder, database="http://127.0.0.1:9")
    ended = bare_tool.fingertip("0" * 64, env=env)
    assert ended.status == Status.UNREACHABLE
    assert "http://127.0.0.1:9" in ended.line()


def test_without_seamless_transformer_it_says_what_to_install(make: Make) -> None:
    made = make(NOISY)
    hide = """
import sys, importlib.abc
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "seamless_transformer":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hide())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda n, p=None: None if n == "seamless_transformer" else found(n, p)
"""
    ended = made.tool.fingertip(made.checksum, first=hide)
    assert ended.status == Status.CONFIGURATION
    assert "pip install seamless-transformer" in ended.line()


def test_a_recomputation_that_cannot_be_stopped_does_not_hold_up_ctrl_c(make: Make) -> None:
    made = make(SLOW)
    mark = made.tool.folder / "mark"
    process = made.tool.start(
        "fingertip", made.checksum, "--output", "out", first=HEED, env={"MARK": str(mark)}
    )
    wait_until(mark.exists, what="the start of the code")
    process.send_signal(signal.SIGINT)
    ended = end(process)
    assert (ended.status, ended.stderr) == (Status.INTERRUPTED, "")
    assert names(made.tool.folder) == {"mark"}
