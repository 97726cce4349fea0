"""What one run of a case took: wall time, CPU time, memory, connections."""

from __future__ import annotations

import contextlib
import http.client
import resource
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

Report = dict[str, float]
"""A run's figures by name; times are in seconds, for one operation."""


class Meter:
    """A context manager around what is measured.

    With `children`, it measures the child processes that end meanwhile. `grown` says by how many
    bytes the peak of the memory lies above what was in use at the beginning.
    """

    def __init__(self, *, children: bool = False) -> None:
        self._whose = resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF
        self._children = children

    def __enter__(self) -> Meter:
        self._memory_before = 0
        if not self._children:
            # VmHWM begins anew from the memory in use (proc(5), clear_refs).
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
            self._memory_before = _status_bytes("VmRSS")
        self._cpu = self._cpu_seconds()
        self._wall = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._wall = time.perf_counter() - self._wall
        self._cpu = self._cpu_seconds() - self._cpu
        if self._children:
            self._peak = resource.getrusage(self._whose).ru_maxrss * 1024
        else:
            # Not getrusage: its figure for a process starts from that of the parent that forked it.
            self._peak = _status_bytes("VmHWM")
        self.grown = self._peak - self._memory_before

    def report(self, operations: int = 1, **others: float) -> Report:
        """The figures that every case has, for so many operations, and others."""
        wall, cpu = self._wall / operations, self._cpu / operations
        return {"wall": wall, "cpu": cpu, "peak_mb": self._peak / 1e6, **others}

    def _cpu_seconds(self) -> float:
        usage = resource.getrusage(self._whose)
        return usage.ru_utime + usage.ru_stime


@contextlib.contextmanager
def counted_connections(url: str) -> Iterator[Callable[[], int]]:
    """Have a stub server count; gives a function: how many were open at once at the most."""
    # One connection for both questions: the server leaves that out of its count.
    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc)) as connection:

        def most() -> int:
            connection.request("GET", "/connections")
            return int(connection.getresponse().read())

        most()
        yield most


def _status_bytes(name: str) -> int:
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(name))
    return int(line.split()[1]) * 1024
