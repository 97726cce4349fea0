"""What one run of a case took: wall time, CPU time, memory, connections."""

from __future__ import annotations

import http.client
import resource
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Report:
    """One run, in seconds and MB (10^6 bytes).

    `peak_mb` is the most resident memory while it was measured, `grown_mb` how far that lies above
    what was in use when the measuring began.
    """

    wall: float
    cpu: float
    peak_mb: float
    grown_mb: float
    operations: int
    extra: dict[str, float] = field(default_factory=dict)


class Meter:
    """A context manager around what is measured; `report` says what that took.

    With `children`, the CPU time and the memory are those of the ended child processes.
    """

    def __init__(self, *, children: bool = False) -> None:
        self._children = children

    def __enter__(self) -> Meter:
        self._before = 0.0
        if not self._children:
            _forget_peak()
            self._before = _status_mb("VmRSS")
        self._cpu = self._cpu_seconds()
        self._wall = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._wall = time.perf_counter() - self._wall
        self._cpu = self._cpu_seconds() - self._cpu
        self._peak = self._peak_mb()

    def report(self, operations: int) -> Report:
        """What it took, for so many operations."""
        grown = self._peak - self._before
        return Report(self._wall, self._cpu, self._peak, grown, operations)

    def _cpu_seconds(self) -> float:
        if not self._children:
            return time.process_time()
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def _peak_mb(self) -> float:
        if self._children:
            return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
        # Not getrusage: its figure for a process starts from that of the parent that forked it.
        return _status_mb("VmHWM")


class Connections:
    """A context manager: `told` says how many connections a stub server accepted meanwhile."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc)

    def __enter__(self) -> Connections:
        self._ask()
        return self

    def __exit__(self, *_: object) -> None:
        accepted, most = self._ask()
        self.told = {"accepted": accepted, "connections": most}
        self._connection.close()

    def _ask(self) -> list[int]:
        self._connection.request("GET", "/connections")
        return [int(number) for number in self._connection.getresponse().read().split()]


def _forget_peak() -> None:
    """Let VmHWM begin anew from the memory in use (proc(5), clear_refs)."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _status_mb(name: str) -> float:
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(name))
    return int(line.split()[1]) * 1024 / 1e6
