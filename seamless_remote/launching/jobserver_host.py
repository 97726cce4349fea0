"""A launched jobserver, seen from outside: its log and, on this machine, its processes.

It tells less than it knows: a job whose connection was lost has its result in the log only, and a
job whose worker process has died is `running` for ever (seamless-jobserver 0.3.0, on the workers of
seamless-transformer 0.6).
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .client_record import ClientRecord
from .launch import Launched
from .service_log import ServiceLog
from .ssh_login import run_there
from .status_file import StatusFile

logger = logging.getLogger(__name__)

_RECEIVED = re.compile(rb"\[jobserver\] Received transformation ([0-9a-f]{64})\s*\Z")
_COMPLETED = re.compile(
    rb"\[jobserver\] Completed transformation ([0-9a-f]{64}) -> ([0-9a-f]{64})\s*\Z"
)

_LONGEST_LINE = 65536
"""Bytes of a line that are looked at: jobs print what they like to the same file."""

_LINES_SENT = 10_000
"""How many lines of a log on another machine are sent here, where it cannot be searched there."""


def logged_result(launched: Launched, job: str) -> str | None:
    """The checksum of a job's result, if the log of its server has it, wherever that is.

    Blocks: it reads the whole log.
    """
    if launched.frontend is None:
        host = JobserverHost.of(launched)
        return None if host is None else _result_in(host.lines(), job)
    key = ClientRecord.of(launched.launch_dict).path.stem
    words = f"[jobserver] Completed transformation {job}"
    # The log may be long: have it searched there. A host that allows the launcher's own commands
    # only has but the helper.
    for command in (
        f"grep -aF {shlex.quote(words)} ~/.remote-http-launcher/server/{key}.log",
        f"rhl-logs {key} --tail {_LINES_SENT}",
    ):
        asked = run_there(launched.frontend, command)
        if asked is not None and asked.returncode == 0:
            return _result_in(asked.stdout.encode().splitlines(), job)
    return None


def _result_in(lines: Iterable[bytes], job: str) -> str | None:
    found = None
    for line in lines:
        match = _COMPLETED.match(line)
        if match is not None and match[1].decode() == job:
            found = match[2].decode()
    return found


@dataclass(frozen=True, slots=True)
class JobserverHost:
    """`log` is the server's own log, `pid` its process, `workers` how many it was launched with (0:
    unknown)."""

    log: Path
    pid: int
    workers: int

    @classmethod
    def of(cls, launched: Launched) -> JobserverHost | None:
        """None for a server on another machine, and for one that is not there any more."""
        status_file = StatusFile.of(launched.launch_dict)
        running = None if status_file is None else status_file.running()
        if status_file is None or running is None or running.port != launched.port:
            return None
        log = ServiceLog.of(launched.launch_dict)
        assert log is not None  # there is one where there is a status file
        workers = launched.launch_dict.get("workers")
        return cls(log.path, running.pid, workers if isinstance(workers, int) else 0)

    def unfinished(self) -> list[str]:
        """The jobs that were received and did not end well: they run, or have failed. Blocks."""
        jobs: dict[str, None] = {}
        for line in self.lines():
            if match := _RECEIVED.match(line):
                jobs[match[1].decode()] = None
            elif match := _COMPLETED.match(line):
                jobs.pop(match[1].decode(), None)
        return list(jobs)

    def missing_workers(self) -> int:
        """How many of its worker processes do not live; 0 as well where that cannot be known."""
        living = 0
        try:
            if b"jobserver" not in Path(f"/proc/{self.pid}/cmdline").read_bytes():
                return 0  # a shell around the server, perhaps
            for task in os.listdir(f"/proc/{self.pid}/task"):
                children = Path(f"/proc/{self.pid}/task/{task}/children").read_text()
                for child in children.split():
                    with suppress(FileNotFoundError, ProcessLookupError):
                        command = Path(f"/proc/{child}/cmdline").read_bytes()
                        living += b"--multiprocessing-fork" in command
        except OSError:
            return 0
        return max(0, self.workers - living)

    def end(self) -> None:
        """Kill the server with its worker processes. Asked to end, it would wait for its jobs."""
        with suppress(OSError):
            if os.getpgid(self.pid) == self.pid:  # as the launcher starts it
                os.killpg(self.pid, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGTERM)

    def lines(self) -> Iterator[bytes]:
        """The lines of the log, in pieces if they are long."""
        try:
            with self.log.open("rb") as file:
                while line := file.readline(_LONGEST_LINE):
                    yield line
        except OSError as exc:
            logger.info("the log of a jobserver, %s, cannot be read: %s", self.log, exc)
