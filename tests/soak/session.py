"""One soak, in a process whose HOME is the soak's own: load, disturbance, measurements.

`python -m soak.session MINUTES SEED BACKEND` is started by `soak.__main__`. It prints the report.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

import seamless
from services import Home

from seamless_remote.client import close_all_clients

from . import operations
from .callers import Caller, Gate, beside, host, short_lived
from .customer import Customer
from .disturbance import Disturber
from .ledger import Ledger, audit
from .place import Place
from .plan import HEALING, MEMORY_ALLOWANCE, QUIETING, SETTING_UP, Plan
from .tally import BrokenPromise, Tally, report, told
from .watch import MEMORY, listen_for_errors, sample, say, show_stacks, tidy_up, watch

LOOK = 0.1  # seconds between two looks at how things go
REST = 3.0  # seconds from the end of all calls to a measurement

PROBES = (operations.write, operations.set_result, operations.read_archived, operations.job)


class Session:
    """The parts of a soak, and its course."""

    def __init__(self, plan: Plan, home: Home) -> None:
        self.plan = plan
        self.home = home
        self.tally = Tally()
        self.ledger = Ledger(home)
        self.gate = Gate()
        self.threads = ThreadPoolExecutor(max_workers=20, thread_name_prefix="soak ")
        self.prepared = threading.Event()
        self.place = Place(home, plan.random("archive"))
        self.callers = [
            self._caller("host", 8, host(plan.backend, self._prepare), orders_jobs=True),
            self._caller("beside 1", 5, beside, orders_jobs=True),
            self._caller("beside 2", 5, beside),
            self._caller("sync 1", 1, short_lived),
            self._caller("sync 2", 1, short_lived),
            self._caller("short", 4, short_lived),
        ]
        self.running: dict[str, Future[None]] = {}
        events = {
            "change of stage": self.place.change_stage,
            "rest of all clients": close_all_clients,
            "standstill of the host's loop": partial(setattr, self.callers[0], "standstill", 0.7),
        }
        self.disturber = Disturber(plan, self.place, events)

    def run(self) -> str:
        """The whole course; gives the report."""
        listen_for_errors(self.tally)
        self._begin("watch", watch, self.tally, self.callers, self.disturber, self.gate)
        self._set_up()
        self._load("warming up", self.plan.calm, calm=True)
        begin = self._measure()
        self.disturber.start(self.threads)
        self._load("disturbed", self.plan.disturbed)
        self._heal()
        self._load("calm", self.plan.calm, calm=True)
        end = self._measure()
        self._wind_up()
        for what, before in begin.items():
            allowed = MEMORY_ALLOWANCE if what == MEMORY else 0
            if end[what] > before + allowed:
                self.tally.violation(f"{end[what]} {what} at the end, {before} at the beginning")
        found, amiss = audit(self.home)
        for text in amiss:
            self.tally.violation(text)
        return report(self.tally, self.disturber.happened, found, begin, end)

    def let_go(self) -> None:
        """Let every thread end, also where something has failed."""
        self.gate.ended = True
        self.disturber.peace.set()

    def _set_up(self) -> None:
        first, *others = self.callers
        self._begin(first.name, first.main, first)
        if not self._wait(SETTING_UP, self.prepared.is_set):
            show_stacks(self.tally)
            raise RuntimeError("the clients could not be activated in time")
        for caller in others:
            self._begin(caller.name, caller.main, caller)

    def _begin(self, name: str, work: Callable[..., None], *arguments: object) -> None:
        self.running[name] = self.threads.submit(work, *arguments)

    def _load(self, phase: str, seconds: float, *, calm: bool = False) -> None:
        self.tally.phase, self.tally.calm = phase, calm
        self.gate.open = True
        self._wait(seconds)
        self.tally.calm = False

    def _wait(self, seconds: float, until: Callable[[], object] = lambda: False) -> bool:
        """Let some seconds pass, or less; whether `until` has come true."""
        deadline = time.monotonic() + seconds
        while not until() and time.monotonic() < deadline:
            for running in self.running.values():
                if running.done():
                    running.result()  # raises what it has failed with
            time.sleep(LOOK)
        return bool(until())

    def _measure(self) -> dict[str, int]:
        """What the process holds when the load pauses and the clients are at rest."""
        self.gate.open = False
        self._wait(QUIETING, lambda: not self.tally.in_progress())
        for call in self.tally.in_progress():
            self.tally.violation(f"{call}: it is still going on after {QUIETING:g} s of pause")
        self.tally.phase = "measuring"
        close_all_clients()
        self._wait(REST)
        tidy_up()
        held = sample(self.callers)
        say(f"at rest: {told(held)}")
        return held

    def _heal(self) -> None:
        """Leave the services in peace until everything works, without any restart of ours."""
        self.tally.phase = "healing"
        for failure in self.disturber.leave_in_peace():
            self.tally.violation(failure)
        customer = self._customer("probe")
        deadline = time.monotonic() + HEALING
        for probe in PROBES:
            while failed := _failure_of(probe(customer)):
                if isinstance(failed, BrokenPromise) or time.monotonic() > deadline:
                    self.tally.violation(f"{probe.__name__}, left in peace: {failed!r}")
                    break
                time.sleep(LOOK)

    def _wind_up(self) -> None:
        self.tally.phase = "ending"
        self.gate.ended = True
        wait(self.running.values(), QUIETING)
        for name, running in self.running.items():
            if not running.done() or running.exception():
                self.tally.violation(f"{name} did not end well: {running}")
                show_stacks(self.tally)
        for caller in self.callers:
            for customer in caller.customers:
                customer.conclude()
        self.ledger.close()
        self.place.close()
        seamless.close()
        names = [thread.name for thread in threading.enumerate()]
        if left := [name for name in names if name.startswith("seamless-remote")]:
            self.tally.violation(f"threads are left after seamless.close(): {left}")

    def _caller(self, name: str, customers: int, main: Any, *, orders_jobs: bool = False) -> Caller:
        each = [self._customer(f"{name}, customer {number}") for number in range(customers)]
        return Caller(name, each, self.gate, main, orders_jobs)

    def _customer(self, name: str) -> Customer:
        return Customer(name, self.plan.random(name), self.tally, self.ledger, self.place.archived)

    def _prepare(self) -> None:
        self.place.activate()
        self.prepared.set()


def _failure_of(operation: Coroutine[Any, Any, None]) -> Exception | None:
    try:
        asyncio.run(operation)
    except Exception as exc:
        return exc
    return None


def main() -> int:
    """Exit status 1 where a promise was broken, or where it does not end."""
    minutes, seed, backend = sys.argv[1:]
    plan, home = Plan(float(minutes), int(seed), backend), Home(Path(os.environ["HOME"]))
    faulthandler.dump_traceback_later(plan.hard_stop, exit=True)
    logging.basicConfig(
        filename=home.path / "soak.log",
        level=logging.WARNING,
        format="%(asctime)s %(threadName)s %(name)s %(levelname)s %(message)s",
    )
    logging.getLogger("seamless_remote").setLevel(logging.INFO)
    session = Session(plan, home)
    try:
        print(session.run(), flush=True)
    finally:
        session.let_go()
    return 1 if session.tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
