"""Several buffers in one run: which, where they go, and what is said of those that fail."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from command import TIMEOUT, Command, Ended, checksum_of, command, names, store

from seamless_remote.cli.checksum_lines import checksum_in, lines_of
from seamless_remote.cli.statuses import Status

CONTENTS = [b"one\n", b"two\n", os.urandom(10_000)]
CHECKSUM = checksum_of(b"one\n")
UNKNOWN = checksum_of(b"nobody has this")


@pytest.fixture
def stored(store_folder: Path) -> list[str]:
    return [store(store_folder, content) for content in CONTENTS]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (CHECKSUM, None),
        (CHECKSUM.upper(), None),
        (f"sha256:{CHECKSUM}", None),
        (f"SHA256:{CHECKSUM.upper()}", None),
        (f"sha256-{CHECKSUM}", None),
        (f'"{CHECKSUM}"', None),
        (f"'{CHECKSUM}'", None),
        (f'"sha256:{CHECKSUM}",', None),
        (f"{CHECKSUM}  data.csv", "data.csv"),
        (f"{CHECKSUM} *data.csv", "data.csv"),
        (f"{CHECKSUM}  a folder/with blanks.csv", "with blanks.csv"),
        (f"{CHECKSUM}  ../../etc/passwd", "passwd"),
        (f"{CHECKSUM}  /", None),
        (f"{CHECKSUM}  ..", None),
        (f"{CHECKSUM}  -", None),
        (f"\\{CHECKSUM}  a\\nb", None),
        (f"SHA256 (data.csv) = {CHECKSUM}", "data.csv"),
        (f"SHA2-256(data.csv)= {CHECKSUM}", "data.csv"),
    ],
)
def test_a_checksum_is_read_as_people_write_it(line: str, name: str | None) -> None:
    assert checksum_in(line) == (CHECKSUM, name)


@pytest.mark.parametrize(
    "line",
    [
        "",
        CHECKSUM[1:],
        CHECKSUM + "0",
        f"{CHECKSUM} data.csv",
        f'"{CHECKSUM}',
        f"md5:{CHECKSUM}",
        f"data.csv {CHECKSUM}",
        CHECKSUM * 2,
    ],
)
def test_what_only_looks_like_a_checksum_is_none(line: str) -> None:
    assert checksum_in(line) is None


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\0"])
def test_lines_are_found_in_any_encoding_and_with_any_end(encoding: str, end: str) -> None:
    text = end.join([CHECKSUM, "", "# a comment", f"  {UNKNOWN}  ", ""])
    if not (encoding == "utf-8" and end == "\0"):
        assert list(lines_of(text.encode(encoding))) == [(1, CHECKSUM), (4, UNKNOWN)]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_checksum_file_may_come_from_another_system(
    tool: Command, stored: list[str], encoding: str
) -> None:
    text = f"# of a telescope\r\n{stored[0].upper()} *data.csv\r\n"
    (tool.folder / "data.csv.CHECKSUM").write_bytes(text.encode(encoding))
    assert tool.resolve("data.csv.CHECKSUM").stdout == CONTENTS[0]


def test_a_list_from_standard_input_comes_out_in_its_order(
    tool: Command, stored: list[str]
) -> None:
    text = f"# buffers\n{stored[2]}  c.bin\n\n{stored[0]}\nsha256:{stored[1]}\n{stored[0]}\n"
    ended = _fed(tool, text, "-")
    one, two, three = CONTENTS
    assert (ended.status, ended.stdout) == (0, three + one + two + one)


@pytest.mark.parametrize("output", ["new", "new/", "old", "old/"])
def test_several_buffers_go_into_a_folder_under_their_names(
    tool: Command, stored: list[str], output: str
) -> None:
    (tool.folder / "old").mkdir()
    (tool.folder / "a.txt.CHECKSUM").write_text(stored[0])
    text = f"{stored[1]}  some/b.txt\n{stored[2]}\n"
    ended = _fed(tool, text, "a.txt.CHECKSUM", "-", "--output", output)
    assert (ended.status, ended.stdout, ended.stderr) == (0, b"", "")
    folder = tool.folder / output
    assert names(folder) == {"a.txt", "b.txt", stored[2]}
    assert [(folder / name).read_bytes() for name in ("a.txt", "b.txt", stored[2])] == CONTENTS


def test_a_pattern_says_where_each_goes(tool: Command, stored: list[str]) -> None:
    (tool.folder / "d").mkdir()
    ended = tool.resolve(*stored, "--output", "d/{checksum}.bin")
    assert ended.status == 0
    assert names(tool.folder / "d") == {f"{checksum}.bin" for checksum in stored}


def test_a_list_from_a_pipe_is_read_like_that_from_standard_input(
    tool: Command, stored: list[str]
) -> None:
    """The shell names a process substitution by its descriptor."""
    script = f'{" ".join(command("resolve"))} <(printf "%s\\n" "$@")'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *stored],
        cwd=tool.folder,
        env=tool.env,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"".join(CONTENTS), b"")


def test_one_that_fails_stops_no_other_and_gives_the_status(
    tool: Command, stored: list[str]
) -> None:
    (tool.folder / "wrong.CHECKSUM").write_text("not a checksum")
    arguments = (UNKNOWN, stored[0], "wrong.CHECKSUM", "missing.CHECKSUM", stored[1])
    ended = tool.resolve(*arguments, "--output", "out")
    assert ended.status == Status.UNKNOWN_CHECKSUM
    first, second, third, last = ended.stderr.splitlines()
    assert UNKNOWN in first
    assert "wrong.CHECKSUM" in second
    assert "missing.CHECKSUM" in third
    assert last == "seamless-resolve: error: 3 of 5 failed"
    assert names(tool.folder / "out") == set(stored[:2])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no checksum in standard input"),
        ("# nothing\n", "there is no checksum in standard input"),
        (f"{CHECKSUM}\nabc\n", "line 2 of standard input is not a checksum: 'abc'"),
    ],
)
def test_a_malformed_list_is_refused_as_a_whole(tool: Command, text: str, said: str) -> None:
    ended = _fed(tool, text, "-", "--output", "out")
    assert ended.status == Status.MALFORMED_CHECKSUM
    assert said in ended.line()
    assert names(tool.folder) == set()


def test_a_closed_standard_input_holds_no_list(tool: Command) -> None:
    ended = tool.resolve("-", first="import os; os.close(0)")
    assert ended.status == Status.UNREADABLE_FILE
    assert "standard input: it is closed" in ended.line()


def test_two_buffers_never_go_to_one_file(tool: Command, stored: list[str]) -> None:
    (tool.folder / "file").touch()
    text = f"{stored[0]}  a/data\n{stored[1]}  b/data\n"
    for output, said in (("out", "out/data: both"), ("x-{name}", "x-data: both"), ("file", "file")):
        ended = _fed(tool, text, "-", "--output", output)
        assert ended.status == Status.UNWRITABLE_OUTPUT
        assert f"cannot write {said}" in ended.line()
    assert (tool.folder / "file").read_bytes() == b""


def test_a_reader_that_goes_away_ends_them_all_quietly(tool: Command, store_folder: Path) -> None:
    checksums = [store(store_folder, os.urandom(200_000)) for _ in range(3)]
    process = tool.start("resolve", *checksums)
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(TIMEOUT) == Status.CLOSED_PIPE
    process.stderr.close()


def _fed(tool: Command, text: str, *arguments: str) -> Ended:
    """Run `seamless-resolve` with a text as its standard input."""
    done = subprocess.run(
        [*command("resolve"), *arguments],
        input=text.encode(),
        cwd=tool.folder,
        env=tool.env,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr.decode())
