"""Runs a tool from command line to exit status; shared by both tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import AnswerError, RefusedError, RemoteError, ServiceError
from .arguments import Arguments, parse_arguments
from .checksum_argument import Wanted, read_checksums
from .descriptors import open_descriptors
from .destination import unwritable
from .interruption import Interrupted, Interruption
from .output import destinations_for
from .reporting import configure_logging, report_error
from .retrieval import Item, Recovery, retrieve
from .standard_error import guard_standard_error
from .standard_output import flush_standard_output, take_standard_output
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
    open_at_start = open_descriptors()
    guard_standard_error()
    try:
        arguments = _parse(tool, argv)
    except Failure as exc:
        return _report(tool, [exc])
    configure_logging(tool.name, verbose=arguments.verbose, debug=arguments.debug)
    try:
        failures = _fetch(tool, arguments, open_at_start)
    except Interrupted as exc:
        return exc.status
    except KeyboardInterrupt:
        # Ctrl-C before the signal handlers were installed.
        return Status.INTERRUPTED
    except Exception as exc:
        failures = [_failure_of(exc)]
    return _report(tool, failures, debug=arguments.debug)


def _report(tool: Tool, failures: Sequence[Failure], *, debug: bool = False) -> Status:
    """Tell each failure; returns the exit status, which is that of the first one."""
    for failure in failures:
        # Silent for a closed pipe, as a program that SIGPIPE ends (`seamless-resolve ... | head`).
        if failure.status is not Status.CLOSED_PIPE:
            report_error(tool.name, failure, debug=debug)
    return failures[0].status if failures else Status.DONE


def _parse(tool: Tool, argv: Sequence[str] | None) -> Arguments:
    """Parse the arguments. Failure if what `--help` prints cannot be written."""
    try:
        try:
            return parse_arguments(tool.name, tool.description, argv)
        except SystemExit:
            flush_standard_output()
            raise
    except BrokenPipeError as exc:
        raise Failure(Status.CLOSED_PIPE, "standard output was closed by its reader") from exc
    except OSError as exc:
        raise unwritable("standard output", exc) from exc


def _fetch(tool: Tool, arguments: Arguments, open_at_start: frozenset[int]) -> list[Failure]:
    """Fetch everything; the failures of some buffers, in their order.

    Any error: nothing can be fetched.
    """
    standard_output = take_standard_output()
    found = read_checksums(arguments.checksums, open_at_start)
    wanted = [each for each in found if isinstance(each, Wanted)]
    if not wanted:
        return [each for each in found if isinstance(each, Failure)]
    destinations = destinations_for(
        arguments.output,
        wanted,
        standard_output=standard_output,
        open_at_start=open_at_start,
        in_place=arguments.in_place,
    )
    for destination in destinations[:1]:
        destination.check()
    items = [Item(*each) for each in zip(wanted, destinations, strict=True)]

    def clean_up() -> None:
        for destination in destinations:
            destination.abandon()

    interruption = Interruption(clean_up)
    interruption.install()
    try:
        retrieve(items, arguments, interruption, tool.recover)
    finally:
        for destination in destinations:
            destination.discard()
    if len(found) == 1:
        if items[0].error is not None:
            raise items[0].error
        return []
    left = iter(items)
    errors = [each if isinstance(each, Failure) else _error_of(next(left)) for each in found]
    failures = [error for error in errors if error is not None]
    if failures:
        failures.append(Failure(failures[0].status, f"{len(failures)} of {len(found)} failed"))
    return failures


def _error_of(item: Item) -> Failure | None:
    """What went wrong with one of several, which is named; None if nothing did."""
    if item.error is None:
        return None
    failure = _failure_of(item.error)
    label = item.wanted.label
    if label in str(failure) or item.wanted.checksum in str(failure):
        return failure
    named = Failure(failure.status, f"{label}: {failure}")
    named.__cause__ = item.error
    return named


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
