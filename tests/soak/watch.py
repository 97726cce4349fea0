"""Watching the process: what it holds, how the load goes on, and where it hangs if it does."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import logging
import re
import sys
import threading
import time
import traceback
from collections.abc import Sequence

import psutil
from seamless.caching import eviction_cost
from seamless.caching.buffer_cache import get_buffer_cache

from seamless_remote import current_nursery

from .callers import Caller, Gate
from .disturbance import Disturber
from .tally import DONE, Tally, told

INTERVAL = 5.0  # seconds between two lines of progress
MEMORY = "MB of memory"

# Threads that others keep idle for ten seconds, and that end by themselves; and the soak's own.
_PASSING = re.compile(r"Trio thread \d+|AnyIO worker thread|asyncio_\d+|soak .*")


def sample(callers: Sequence[Caller]) -> dict[str, int]:
    """What the process holds at this moment, passing threads and the soak's own aside."""
    process = psutil.Process()
    threads = [each.name for each in threading.enumerate() if not _PASSING.fullmatch(each.name)]
    return {
        MEMORY: process.memory_info().rss // 1_000_000,
        "threads": len(threads),
        "open files": process.num_fds(),
        "tasks": sum(caller.tasks for caller in callers),
        "child processes": len(process.children(recursive=True)),
    }


def tidy_up() -> None:
    """Give back what is garbage, what malloc holds, and what Seamless keeps of each buffer.

    Seamless notes the length of every buffer that it has ever seen.
    """
    get_buffer_cache()._sizes.clear()
    eviction_cost._cost_module = eviction_cost.CostModule()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def watch(tally: Tally, callers: Sequence[Caller], disturber: Disturber, gate: Gate) -> None:
    """Say every few seconds how the load goes on, and show where a call hangs."""
    began = time.monotonic()
    while not gate.ended:
        time.sleep(INTERVAL)
        if tally.report_overdue():
            show_stacks(tally)
        outcomes = tally.outcomes.copy()
        well = sum(count for (_, outcome), count in outcomes.items() if outcome == DONE)
        say(
            f"[{time.monotonic() - began:4.0f} s, {tally.phase}] {well} calls done, "
            f"{outcomes.total() - well} not, {len(tally.in_progress())} in progress; {_health()}; "
            f"{told(sample(callers))}; last: {disturber.last}"
        )
        if tally.last_error:
            say(f"    {tally.last_error[:300]}")
            tally.last_error = ""


def show_stacks(tally: Tally) -> None:
    """Write what is in progress, and the stacks of all threads, to stderr."""
    nursery = current_nursery()
    for call in [*tally.in_progress(), *(nursery.snapshot().calls if nursery else ())]:
        say(f"in progress: {call}")
    faulthandler.dump_traceback(all_threads=True)


def say(text: str) -> None:
    """Progress is told on stderr; stdout is the report's."""
    print(text, file=sys.stderr, flush=True)


def _health() -> str:
    nursery = current_nursery()
    services = nursery.snapshot().services if nursery else ()
    clients = [client for service in services for client in service.clients]
    return ", ".join(f"{client.name} {client.health}" for client in clients) or "no clients"


def listen_for_errors(tally: Tally) -> None:
    """Count as a violation what has no caller to be raised to: what threads die of, what
    finalizers raise (warnings of unclosed resources included), what asyncio complains of.
    """

    def complain(what: object, exc: BaseException | None) -> None:
        tally.violation("".join([f"{what}\n", *(traceback.format_exception(exc) if exc else ())]))

    class Complaints(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tally.violation(f"{record.name}: {self.format(record)}")

    sys.unraisablehook = lambda args: complain(args.err_msg or args.object, args.exc_value)
    threading.excepthook = lambda args: complain(args.thread, args.exc_value)
    logging.getLogger("asyncio").addHandler(Complaints(logging.ERROR))
    logging.getLogger("seamless_remote").addHandler(Complaints(logging.CRITICAL))
