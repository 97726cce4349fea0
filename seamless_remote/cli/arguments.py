"""Parses the command line, which is the same for both tools."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from .. import __version__
from .statuses import Status, status_table

_EPILOG = """\
Sources of buffers (the first of these that is set):
  SEAMLESS_CACHE           a folder of buffers and results on this machine
  SEAMLESS_REMOTE_CLIENTS  running services, as JSON
  seamless.yaml, seamless.profile.yaml in the current folder, and ~/.seamless/clusters.yaml

Only the buffer goes to standard output; everything else goes to standard error.

Exit status:
"""


@dataclass(frozen=True, slots=True)
class Selection:
    """A project with an optional subproject, or a stage with an optional substage."""

    name: str
    sub: str | None


@dataclass(frozen=True, slots=True)
class Arguments:
    """The parsed command line."""

    checksum: str
    output: str | None
    project: Selection | None
    stage: Selection | None
    verbose: bool
    debug: bool
    quiet: bool


def parse_arguments(prog: str, description: str, argv: Sequence[str] | None) -> Arguments:
    """Parse `argv`, by default the arguments of this process.

    Raises SystemExit: with status 0 after `--help` and `--version`, with status 2 on a usage error.
    """
    found = _parser(prog, description).parse_args(argv)
    return Arguments(**vars(found))


class _Parser(argparse.ArgumentParser):
    """A parser that reports a usage error in one line, like all errors of the tools."""

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
    add("checksum", metavar="CHECKSUM", help="64 hex digits, or a .CHECKSUM file")
    add(
        "-o",
        "--output",
        metavar="FILE",
        help="write to FILE, replacing it only once the whole buffer has arrived; "
        "- means standard output, even if that is a terminal",
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
