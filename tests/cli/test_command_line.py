"""The command line and the CHECKSUM argument."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command import Command, checksum_of, store

from seamless_remote import __version__
from seamless_remote.cli.statuses import Status

CONTENT = b"a buffer\n"

HEAVY = ("seamless", "seamless_config", "anyio", "trio", "httpx", "httptools", "zstandard", "tqdm")
LIST_MODULES = f"""
import atexit, json, sys
atexit.register(lambda: print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]),
    file=sys.stderr))
"""


@pytest.mark.parametrize("name", ["resolve", "fingertip"])
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_nothing_heavy(bare_tool: Command, name: str, option: str) -> None:
    ended = bare_tool.run(name, option, first=LIST_MODULES)
    assert ended.status == 0
    assert json.loads(ended.line()) == []


@pytest.mark.parametrize("name", ["resolve", "fingertip"])
def test_version_is_that_of_the_package(bare_tool: Command, name: str) -> None:
    assert bare_tool.run(name, "--version").stdout.decode() == f"seamless-{name} {__version__}\n"


@pytest.mark.parametrize("name", ["resolve", "fingertip"])
def test_help_lists_every_exit_status(bare_tool: Command, name: str) -> None:
    shown = bare_tool.run(name, "--help").stdout.decode()
    for status in Status:
        assert f"  {status.value}  {status.meaning}\n" in shown


@pytest.mark.parametrize(
    "arguments",
    [(), ("--no-such-option", "a"), ("a", "--project", ":sub"), ("a", "--output")],
)
def test_a_wrong_command_line_is_one_line_and_status_2(
    bare_tool: Command, arguments: tuple[str, ...]
) -> None:
    ended = bare_tool.resolve(*arguments)
    assert ended.status == Status.USAGE
    assert ended.line().startswith("seamless-resolve: error: ")


@pytest.mark.parametrize(
    "argument", ["", "abc", "g" * 64, "a" * 63, "a" * 65, "a" * 5000, "\x1b[1m"]
)
def test_a_malformed_checksum_is_refused_before_anything_else(
    bare_tool: Command, argument: str
) -> None:
    ended = bare_tool.resolve(argument)
    assert ended.status == Status.MALFORMED_CHECKSUM
    assert "64 hex digits" in ended.line()
    assert len(ended.line()) < 300
    assert "\x1b" not in ended.line()


def test_a_forgotten_suffix_is_pointed_out(bare_tool: Command) -> None:
    (bare_tool.folder / "result.CHECKSUM").write_text(checksum_of(CONTENT))
    ended = bare_tool.resolve("result")
    assert ended.status == Status.MALFORMED_CHECKSUM
    assert "did you mean result.CHECKSUM?" in ended.line()


def test_uppercase_digits_are_a_checksum(tool: Command, store_folder: Path) -> None:
    assert tool.resolve(store(store_folder, CONTENT).upper()).stdout == CONTENT


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "{}\n",
        "  {}  \r\n",
        "# made by hand\n\n{}\n\n# the end\n",
        "\n   # indented\n\t{}",
    ],
)
def test_a_checksum_file_may_hold_blank_lines_and_comments(
    tool: Command, store_folder: Path, text: str
) -> None:
    checksum = store(store_folder, CONTENT)
    (tool.folder / "result.CHECKSUM").write_text(text.format(checksum))
    ended = tool.resolve("result.CHECKSUM")
    assert (ended.status, ended.stdout, ended.stderr) == (0, CONTENT, "")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"# nothing\n",
        b"abc\n",
        f"{'a' * 64}\n{'b' * 64}\n".encode(),
        f"{'a' * 64} result.txt\n".encode(),
        b"\xff" * 64,
        b"a" * 1_000_000,
    ],
)
def test_a_file_without_exactly_one_checksum_is_malformed(
    bare_tool: Command, content: bytes
) -> None:
    (bare_tool.folder / "result.CHECKSUM").write_bytes(content)
    ended = bare_tool.resolve("result.CHECKSUM")
    assert ended.status == Status.MALFORMED_CHECKSUM
    assert "result.CHECKSUM" in ended.line()


def test_a_missing_checksum_file_cannot_be_read(bare_tool: Command) -> None:
    ended = bare_tool.resolve("missing.CHECKSUM")
    assert ended.status == Status.UNREADABLE_FILE
    assert "missing.CHECKSUM" in ended.line()
    assert "No such file" in ended.line()


def test_a_folder_named_like_a_checksum_file_cannot_be_read(bare_tool: Command) -> None:
    (bare_tool.folder / "folder.CHECKSUM").mkdir()
    ended = bare_tool.resolve("folder.CHECKSUM")
    assert ended.status == Status.UNREADABLE_FILE
    assert "folder.CHECKSUM" in ended.line()


def test_debug_shows_the_traceback_and_then_the_same_line(bare_tool: Command) -> None:
    ended = bare_tool.resolve("missing.CHECKSUM", "--debug")
    assert ended.status == Status.UNREADABLE_FILE
    assert "Traceback" in ended.stderr
    assert ended.stderr.splitlines()[-1] == bare_tool.resolve("missing.CHECKSUM").line()


def test_the_tools_can_be_imported_without_doing_anything() -> None:
    code = "import seamless_remote.cli.resolve, seamless_remote.cli.fingertip"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
