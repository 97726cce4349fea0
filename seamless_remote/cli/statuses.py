"""How a tool ends: the exit statuses, and the failure that carries one."""

from __future__ import annotations

import enum


class Status(enum.IntEnum):
    """The exit statuses of the tools, each with its line in `--help`."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Status:
        status = int.__new__(cls, value)
        status._value_ = value
        status.meaning = meaning
        return status

    DONE = 0, "the buffer was written, whole and verified"
    UNEXPECTED = 1, "an error that none of the following describes (--debug shows where)"
    USAGE = 2, "the command line is wrong"
    MALFORMED_CHECKSUM = 3, "CHECKSUM is malformed, or its file does not hold exactly one checksum"
    UNREADABLE_FILE = 4, "the checksum file cannot be read"
    UNKNOWN_CHECKSUM = 5, "no source has the buffer, and there is no way to recompute it"
    CONFIGURATION = 6, "no cluster or project, a malformed configuration, a package is missing"
    UNREACHABLE = 7, "a service cannot be reached or launched"
    UNWRITABLE_OUTPUT = 8, "the output cannot be written, or the disk is full"
    REFUSED = 9, "a service refused the request, or its answer makes no sense"
    BINARY_TO_TERMINAL = 10, "the buffer is binary and the output is a terminal"
    HANGUP = 129, "ended by SIGHUP"
    INTERRUPTED = 130, "ended by Ctrl-C (SIGINT)"
    CLOSED_PIPE = 141, "who reads the output has closed it"
    TERMINATED = 143, "ended by SIGTERM"


class Failure(Exception):
    """The tool cannot do what it was asked: the status to end with, and the line that says why."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


def status_table() -> str:
    """The exit statuses as `--help` shows them."""
    return "\n".join(f"  {status.value:>3}  {status.meaning}" for status in Status)
