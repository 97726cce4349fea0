"""The exit statuses of the tools, and the exception that carries one."""

from __future__ import annotations

import enum


class Status(enum.IntEnum):
    """An exit status; `meaning` is its line in `--help`."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Status:
        status = int.__new__(cls, value)
        status._value_ = value
        status.meaning = meaning
        return status

    DONE = 0, "the whole buffer was verified and written"
    UNEXPECTED = 1, "an error not listed below (--debug shows a traceback)"
    USAGE = 2, "the command line is wrong"
    MALFORMED_CHECKSUM = 3, "CHECKSUM is malformed, or its file does not hold exactly one checksum"
    UNREADABLE_FILE = 4, "the checksum file cannot be read"
    UNKNOWN_CHECKSUM = 5, "no source has the buffer, and it cannot be recomputed"
    CONFIGURATION = 6, "no cluster or project, a malformed configuration, or a missing package"
    UNREACHABLE = 7, "a service cannot be reached or launched"
    UNWRITABLE_OUTPUT = 8, "the output cannot be written, or the disk is full"
    REFUSED = 9, "a service refused the request, or gave an invalid answer"
    BINARY_TO_TERMINAL = 10, "the buffer is binary and the output is a terminal"
    # As a shell reports a program that a signal has ended: 128 + the signal's number.
    HANGUP = 129, "ended by SIGHUP"
    INTERRUPTED = 130, "ended by Ctrl-C (SIGINT)"
    CLOSED_PIPE = 141, "the reader of the output closed it (SIGPIPE)"
    TERMINATED = 143, "ended by SIGTERM"


class Failure(Exception):
    """The tool cannot do its job. The message is the one line to print."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


def status_table() -> str:
    """The exit statuses, formatted for `--help`."""
    return "\n".join(f"  {status.value:>3}  {status.meaning}" for status in Status)
