"""Runs a tool from command line to exit status; shared by both tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import AnswerError, RefusedError, RemoteError, ServiceError
from .arguments import Arguments, parse_arguments
from .checksum_argument import read_checksum
from .destination import destination_for
from .interruption import Interrupted, Interruption
from .reporting import configure_logging, report_error
from .retrieval import Recovery, retrieve
from .standard_output import take_standard_output
from .statuses import Failure, Status


@dataclass(frozen=True, slots=True)
class Tool:
    """What the tools differ in. `recover` is called for a buffer that no source has."""

    name: str
    description: str
    recover: Recovery | None = None


def run_tool(tool: Tool, argv: Sequence[str] | None) -> int:
    """Run a tool with `argv`, by default the arguments of this process; returns the exit status.

    Takes over the process: standard output, signal handlers, logging, and the remote nursery.
    """
    arguments = parse_arguments(tool.name, tool.description, argv)
    configure_logging(tool.name, verbose=arguments.verbose, debug=arguments.debug)
    try:
        _fetch(tool, arguments)
    except Interrupted as exc:
        return exc.status
    except KeyboardInterrupt:
        # Ctrl-C before the signal handlers were installed.
        return Status.INTERRUPTED
    except Exception as exc:
        failure = _failure_of(exc)
        # Silent for a closed pipe, as a program that SIGPIPE ends (`seamless-resolve ... | head`).
        if failure.status is not Status.CLOSED_PIPE:
            report_error(tool.name, failure, debug=arguments.debug)
        return failure.status
    return Status.DONE


def _fetch(tool: Tool, arguments: Arguments) -> None:
    standard_output = take_standard_output()
    checksum = read_checksum(arguments.checksum)
    destination = destination_for(arguments.output, standard_output)
    interruption = Interruption(clean_up=destination.abandon)
    interruption.install()
    try:
        retrieve(checksum, destination, arguments, interruption, tool.recover)
        destination.deliver()
    finally:
        destination.discard()


def _failure_of(error: Exception) -> Failure:
    """Turn any error into a failure: an exit status and a message for a user."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, ServiceError):
        status = Status.UNREACHABLE
    elif isinstance(error, (RefusedError, AnswerError)):
        status = Status.REFUSED
    else:
        status = Status.UNEXPECTED
    text = str(error)
    if not isinstance(error, RemoteError):
        text = f"unexpected {type(error).__name__}: {text} (--debug shows the traceback)"
    failure = Failure(status, _without_traceback(text))
    failure.__cause__ = error
    return failure


def _without_traceback(text: str) -> str:
    """The text of an error with a traceback in it (of another program) cut to its last line."""
    before, found, after = text.partition("Traceback (most recent call last):")
    return before + after.strip().rpartition("\n")[2] if found else text
