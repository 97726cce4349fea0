"""The command line of both tools."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from .. import __version__
from .statuses import Status, status_table

_EPILOG = """\
Where buffers are looked for, the first of these that is set:
  SEAMLESS_CACHE           a folder of buffers and results on this machine
  SEAMLESS_REMOTE_CLIENTS  services that run already, as JSON
  seamless.yaml, seamless.profile.yaml in the current folder, and ~/.seamless/clusters.yaml

Standard output carries the buffer alone; everything else goes to standard error.

Exit status:
"""


@dataclass(frozen=True, slots=True)
class Scope:
    """A project with its subproject, or a stage with its substage."""

    name: str
    sub: str | None


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the command line asks for."""

    checksum: str
    output: str | None
    project: Scope | None
    stage: Scope | None
    verbose: bool
    debug: bool
    quiet: bool


def parse_arguments(prog: str, description: str, argv: Sequence[str] | None) -> Arguments:
    """Parse a command line (the process's own by default).

    SystemExit after `--help` and `--version` (status 0), and where it is wrong (status 2).
    """
    found = _parser(prog, description).parse_args(argv)
    return Arguments(**vars(found))


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

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
        help="write to FILE, which is replaced only when the whole buffer has arrived; "
        "- is standard output, even where that is a terminal",
    )
    add("--project", metavar="PROJECT[:SUBPROJECT]", type=_scope, help="in place of the configured")
    add("--stage", metavar="STAGE[:SUBSTAGE]", type=_scope, help="the stage to look in")
    add("-v", "--verbose", action="store_true", help="say what is being done")
    add("--debug", action="store_true", help="say everything, with tracebacks")
    add("-q", "--quiet", action="store_true", help="no progress bar")
    add("--version", action="version", version=f"{prog} {__version__}")
    return parser


def _scope(text: str) -> Scope:
    name, _, sub = text.partition(":")
    if not name:
        raise argparse.ArgumentTypeError(f"{text!r} has no name before the colon")
    return Scope(name, sub or None)
