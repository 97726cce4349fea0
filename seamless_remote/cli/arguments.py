"""Parses the command line, which is the same for both tools."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from .. import __version__
from .statuses import Status, status_table

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

_EPILOG = """\
Sources of buffers (the first of these that is set):
  SEAMLESS_CACHE           a folder of buffers and results on this machine
  SEAMLESS_REMOTE_CLIENTS  running services, as JSON
  seamless.yaml, seamless.profile.yaml in the current folder, and ~/.seamless/clusters.yaml

CHECKSUM is one of
  64 hex digits            in either case, with or without "sha256:" before them
  NAME.CHECKSUM            a file with one of them, bare or as sha256sum writes it
  -                        a list of them from standard input, one a line; a pipe or a process
                           substitution is read in the same way

Several buffers are written to standard output one after the other, or into the folder FILE, each
under its NAME: that of its .CHECKSUM file, or the one beside it in the list, or else its checksum.
With {checksum} or {name} in it, FILE is a pattern. A buffer that fails does not stop the others.

An existing FILE keeps its owner, group, mode, ACL and attributes, and is replaced at once. If that
cannot be, or with --in-place, the verified buffer is copied into it.

Only the buffer goes to standard output; everything else goes to standard error.

Exit status (of several buffers, that of the first that failed):
"""


@dataclass(frozen=True, slots=True)
class Selection:
    """A project with an optional subproject, or a stage with an optional substage."""

    name: str
    sub: str | None


@dataclass(frozen=True, slots=True)
class Arguments:
    """The parsed command line."""

    checksums: tuple[str, ...]
    output: str | None
    in_place: bool
    project: Selection | None
    stage: Selection | None
    verbose: bool
    debug: bool
    quiet: bool


def parse_arguments(prog: str, description: str, argv: Sequence[str] | None) -> Arguments:
    """Parse `argv`, by default the arguments of this process.

    Raises SystemExit: with status 0 after `--help` and `--version`, with status 2 on a usage error.
    """
    found = vars(_parser(prog, description).parse_args(argv))
    return Arguments(checksums=tuple(found.pop("checksums")), **found)


class _Parser(argparse.ArgumentParser):
    """A parser that reports a usage error in one line, like all errors of the tools.

    What cannot be printed is an OSError; its base class swallows that.
    """

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        stream = file or sys.stderr
        if stream is not None:  # closed
            stream.write(message)

    def error(self, message: str) -> NoReturn:
        self.exit(Status.USAGE, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def _parser(prog: str, description: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=prog,
        description=description,
        epilog=_EPILOG + status_table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "checksums",
        metavar="CHECKSUM",
        nargs="+",
        help="64 hex digits, a .CHECKSUM file, or - for a list from standard input",
    )
    add(
        "-o",
        "--output",
        metavar="FILE",
        help="write to FILE, replacing it only once the whole buffer has arrived; "
        "- means standard output, even if that is a terminal; for several buffers, a folder or a "
        "pattern",
    )
    add(
        "--in-place",
        action="store_true",
        help="write into an existing FILE instead of replacing it: its hard links see the buffer, "
        "and a crash meanwhile leaves a part of it",
    )
    add(
        "--project",
        metavar="PROJECT[:SUBPROJECT]",
        type=_selection,
        help="use this project instead of the configured one",
    )
    add(
        "--stage",
        metavar="STAGE[:SUBSTAGE]",
        type=_selection,
        help="use this stage of the project",
    )
    add("-v", "--verbose", action="store_true", help="log what is being done")
    add("--debug", action="store_true", help="log everything, with tracebacks")
    add("-q", "--quiet", action="store_true", help="no progress bar")
    add("--version", action="version", version=f"{prog} {__version__}")
    return parser


def _selection(text: str) -> Selection:
    name, _, sub = text.partition(":")
    if not name:
        raise argparse.ArgumentTypeError(f"{text!r} has no name before the colon")
    return Selection(name, sub or None)
