"""The course of both tools: from the command line to the exit status."""

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
    """A tool: its name, what `--help` says it does, and what it does when a buffer is gone."""

    name: str
    description: str
    recover: Recovery | None = None


def run_tool(tool: Tool, argv: Sequence[str] | None) -> int:
    """Run a tool with a command line (the process's own by default); its exit status.

    It takes over the process: standard output, signals, logging, and the remote nursery.
    """
    arguments = parse_arguments(tool.name, tool.description, argv)
    configure_logging(tool.name, verbose=arguments.verbose, debug=arguments.debug)
    try:
        _fetch(tool, arguments)
    except Interrupted as exc:
        return exc.status
    except KeyboardInterrupt:
        return Status.INTERRUPTED
    except Exception as exc:
        failure = failure_of(exc)
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


def failure_of(error: Exception) -> Failure:
    """An error as a failure: with its exit status, and words for who does not know the code."""
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
        text = f"unexpected {type(error).__name__}: {text} (--debug shows where)"
    failure = Failure(status, _without_traceback(text))
    failure.__cause__ = error
    return failure


def _without_traceback(text: str) -> str:
    """An error's text without the traceback that another program's words may hold, but its end."""
    before, found, after = text.partition("Traceback (most recent call last):")
    return before + after.strip().rpartition("\n")[2] if found else text
