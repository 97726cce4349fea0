"""Watching the process: what it holds, how the load goes on, and where it hangs if it does."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import gc
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil
from seamless.caching import eviction_cost
from seamless.caching.buffer_cache import get_buffer_cache

from seamless_remote import current_nursery

from .callers import Caller
from .tally import Tally

INTERVAL = 5.0
"""Seconds between two lines of progress."""

MOST_STACKS = 3

# Threads that others keep idle for ten seconds, and that end by themselves.
_PASSING = re.compile(r"Trio thread \d+|AnyIO worker thread|asyncio_\d+|soak .*")


@dataclass(frozen=True)
class Sample:
    """What the process holds; `memory` is in MB (VmRSS)."""

    memory: float
    threads: int
    files: int
    sockets: int
    tasks: int
    children: int

    def __str__(self) -> str:
        counts = asdict(self)
        memory = counts.pop("memory")
        return f"{memory:.1f} MB, " + ", ".join(f"{n} {what}" for what, n in counts.items())


def sample(callers: Sequence[Caller]) -> Sample:
    """What the process holds at this moment, passing threads and the soak's own aside."""
    targets = _open_files()
    return Sample(
        memory=psutil.Process().memory_info().rss / 1e6,
        threads=len(lasting_threads()),
        files=len(targets),
        sockets=sum(target.startswith("socket:") for target in targets),
        tasks=sum(len(_tasks(caller.loop)) for caller in callers),
        children=len(psutil.Process().children(recursive=True)),
    )


def lasting_threads() -> list[str]:
    """The names of all threads but the passing ones and the soak's own."""
    names = [each.name for each in threading.enumerate()]
    return [name for name in names if not _PASSING.fullmatch(name)]


def sample_at_rest(callers: Sequence[Caller], within: float) -> Sample:
    """The same with nothing going on, when it has not changed for a second, memory aside."""
    deadline = time.monotonic() + within
    before = None
    while True:
        tidy_up()
        after = sample(callers)
        if before is not None and _counts(before) == _counts(after):
            return after
        if time.monotonic() > deadline:
            return after
        before = after
        time.sleep(1.0)


def tidy_up() -> None:
    """Give back what is garbage, what malloc holds, and what Seamless keeps of each buffer.

    Seamless notes the length of every buffer that it has ever seen.
    """
    get_buffer_cache()._sizes.clear()
    eviction_cost._cost_module = eviction_cost.CostModule()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _counts(each: Sample) -> dict[str, float]:
    return {name: value for name, value in asdict(each).items() if name != "memory"}


def _open_files() -> list[str]:
    targets = []
    for name in os.listdir("/proc/self/fd"):
        try:
            targets.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue  # the descriptor by which the directory itself was read
    return targets


def _tasks(loop: Any) -> list[Any]:
    """The tasks of an asyncio loop, or those below trio's root task."""
    if loop is None:
        return []
    if isinstance(loop, asyncio.AbstractEventLoop):
        return [task for task in asyncio.all_tasks(loop) if not task.done()]
    found = []
    waiting = [loop]
    while waiting:
        for nursery in list(waiting.pop().child_nurseries):
            children = list(nursery.child_tasks)
            found += children
            waiting += children
    return found


class Watch:
    """Looks at the soak every few seconds, on a thread of its own, and says so on stderr.

    After `limit` seconds, before the hard stop, it shows where everything hangs.
    """

    def __init__(
        self, tally: Tally, callers: Sequence[Caller], last: Callable[[], str], limit: float
    ) -> None:
        self.samples: list[tuple[float, Sample]] = []
        self._tally = tally
        self._callers = callers
        self._last = last
        self._limit = limit
        self._began = time.monotonic()
        self._told = (0, 0)
        self._stacks = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="soak watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def show_stacks(self) -> None:
        """Write the stacks of all threads and tasks, and the calls in progress, to stderr."""
        for call in self._tally.in_progress():
            say(f"in progress: {call}")
        for caller in self._callers:
            for task in _tasks(caller.loop):
                say(f"a task of {caller.name}: {task!r}\n{_stack(task)}")
        faulthandler.dump_traceback(all_threads=True)

    def _run(self) -> None:
        while not self._done.wait(INTERVAL):
            self._look_for_overdue_calls()
            self._tell()
            if time.monotonic() - self._began > self._limit:
                say("the time is up")
                self.show_stacks()
                return

    def _look_for_overdue_calls(self) -> None:
        late = self._tally.overdue()
        for call in late:
            self._tally.violation(f"{call}: it does not end")
            say(f"OVERDUE: {call}")
        if late and self._stacks < MOST_STACKS:
            self._stacks += 1
            self.show_stacks()

    def _tell(self) -> None:
        tally = self._tally
        now = sample(self._callers)
        self.samples.append((time.monotonic() - self._began, now))
        done = tally.operations.total()
        errors = sum(n for (_, outcome), n in list(tally.outcomes.items()) if outcome != "done")
        say(
            f"[{time.monotonic() - self._began:4.0f} s, {tally.phase.value}] "
            f"{(done - self._told[0]) / INTERVAL:.0f} calls/s, {errors - self._told[1]} failed, "
            f"{len(tally.in_progress())} in progress; {_health()}; {now}; last: {self._last()}"
        )
        if tally.last_error:
            say(f"    {tally.last_error[:300]}")
            tally.last_error = ""
        self._told = (done, errors)


def say(text: str) -> None:
    """Progress is told on stderr; stdout is the report's."""
    print(text, file=sys.stderr, flush=True)


def _health() -> str:
    nursery = current_nursery()
    if nursery is None:
        return "no nursery"
    clients = [client for service in nursery.snapshot().services for client in service.clients]
    return ", ".join(f"{client.name} {client.health}" for client in clients)


def _stack(task: Any) -> str:
    """Where a task waits, the innermost frame last."""
    if isinstance(task, asyncio.Task):
        coroutine: Any = task.get_coro()
    else:
        coroutine = task.coro
    lines = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is None:
            break
        lines += traceback.format_list(
            [traceback.FrameSummary(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)]
        )
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    return "".join(lines)
