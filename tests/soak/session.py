"""One soak, in a process whose HOME is the soak's own: load, disturbance, measurements.

`python -m soak.session MINUTES SEED BACKEND` is started by `soak.supervisor`. It writes what came
of it to `outcome.json` in the HOME, and the ledger beside it; the supervisor does the rest.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import remote_http_launcher
import seamless
from services import Home

from seamless_remote.client import close_all_clients
from seamless_remote.nursery.hosted_thread import THREAD_NAME

from . import operations
from .callers import Caller, Gate, beside, host, short_lived, synchronous
from .customer import Customer
from .disturbance import Disturber, ExternTarget, LaunchedTarget
from .ledger import Ledger
from .place import Place
from .plan import HEALING, MEMORY_ALLOWANCE, QUIETING, SETTING_UP, Plan
from .tally import BrokenPromise, Phase, Tally
from .unnoticed import listen_for_errors
from .watch import Sample, Watch, lasting_threads, sample_at_rest, say

LAST_WORDS = 15.0
"""Seconds before the hard stop, when it is shown where everything hangs."""

LOOK = 0.1
"""Seconds between two looks at how things go."""

CUSTOMERS = {"host": 8, "beside 1": 5, "beside 2": 5, "sync 1": 1, "sync 2": 1, "short": 4}


class Session:
    """The parts of a soak, and its course."""

    def __init__(self, plan: Plan, home: Home) -> None:
        self.plan = plan
        self.home = home
        self.tally = Tally()
        self.ledger = Ledger(home.path / "ledger")
        self.gate = Gate()
        self.prepared = threading.Event()
        self.place = Place(home, plan.random("archive"))
        self.callers = self._make_callers()
        self.disturber = Disturber(
            plan,
            [
                *(LaunchedTarget(name, home) for name in self.place.ports),
                ExternTarget("jobserver", self.place.jobserver),
                ExternTarget("archive", self.place.archive),
            ],
            {
                "change of stage": self.place.change_stage,
                "rest of all clients": close_all_clients,
                "standstill of the nursery's loop": lambda: self.callers[0].block(0.7),
            },
            self.tally,
        )
        self.watch = Watch(
            self.tally,
            self.callers,
            lambda: self.disturber.last,
            plan.hard_stop - LAST_WORDS,
        )

    def run(self) -> dict[str, Any]:
        """The whole course; what came of it, as plain data."""
        listen_for_errors(self.tally)
        _count_launches(self.tally)
        self.watch.start()
        self._set_up()
        begin, end = self._soak()
        self._wind_up()
        self._compare(begin, end)
        return self._outcome(begin, end)

    # The course.

    def _set_up(self) -> None:
        first, *others = self.callers
        first.start()
        deadline = time.monotonic() + SETTING_UP
        while not self.prepared.wait(LOOK):
            self._require_callers_alive([first])
            if time.monotonic() > deadline:
                self.watch.show_stacks()
                raise RuntimeError("the clients could not be activated in time")
        for caller in others:
            caller.start()

    def _soak(self) -> tuple[Sample, Sample]:
        self._load(Phase.WARMING_UP, self.plan.warm_up)
        begin = self._measure()
        self.disturber.start()
        self._load(Phase.DISTURBED, self.plan.disturbed)
        self.tally.phase = Phase.HEALING
        self.disturber.leave_in_peace()
        self._await_healing()
        self._load(Phase.CALM, self.plan.calm)
        return begin, self._measure()

    def _load(self, phase: Phase, seconds: float) -> None:
        self.tally.phase = phase
        self.gate.open = True
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._require_callers_alive(self.callers)
            time.sleep(LOOK)

    @staticmethod
    def _require_callers_alive(callers: Sequence[Caller]) -> None:
        for caller in callers:
            if caller.failure is not None:
                raise RuntimeError(f"{caller.name} has failed") from caller.failure

    def _measure(self) -> Sample:
        """What the process holds when the load pauses and the clients are at rest."""
        self.gate.open = False
        deadline = time.monotonic() + QUIETING
        while self.tally.in_progress() and time.monotonic() < deadline:
            time.sleep(0.1)
        for call in self.tally.in_progress():
            self.tally.violation(f"{call}: it is still going on after {QUIETING:g} s of pause")
        self.tally.phase = Phase.MEASURING
        close_all_clients()
        found = sample_at_rest(self.callers, QUIETING)
        say(f"at rest: {found}")
        return found

    def _await_healing(self) -> None:
        """Wait until everything works, without any restart of ours."""
        customer = self._customer("probe")
        deadline = time.monotonic() + HEALING
        for operation in (
            operations.write,
            operations.set_result,
            operations.read_archived,
            operations.job,
        ):
            while True:
                try:
                    asyncio.run(operation(customer))
                    break
                except BrokenPromise as exc:
                    self.tally.violation(f"{operation.__name__}: {exc}")
                    break
                except Exception as exc:
                    if time.monotonic() > deadline:
                        self.tally.violation(
                            f"{operation.__name__}: the services are well again for {HEALING:g} s "
                            f"and still it fails: {exc!r}"
                        )
                        break
                    time.sleep(0.2)

    def _wind_up(self) -> None:
        self.tally.phase = Phase.ENDING
        self.gate.ended = True
        for caller in self.callers:
            caller.thread.join(QUIETING)
            if caller.thread.is_alive():
                self.tally.violation(f"{caller.name} does not end")
                self.watch.show_stacks()
            elif caller.failure is not None:
                self.tally.violation(f"{caller.name} ended with {caller.failure!r}")
            for customer in caller.customers:
                customer.conclude()
        self.ledger.close()
        self.place.close()
        seamless.close()
        self.watch.stop()
        if left := [each for each in lasting_threads() if each.startswith(THREAD_NAME)]:
            self.tally.violation(f"threads are left after seamless.close(): {left}")

    def _compare(self, begin: Sample, end: Sample) -> None:
        for what in ("threads", "files", "sockets", "tasks", "children"):
            before, after = getattr(begin, what), getattr(end, what)
            if after > before:
                self.tally.violation(f"{after} {what} at the end, {before} at the beginning")
        grown = end.memory - begin.memory
        if grown > MEMORY_ALLOWANCE:
            self.tally.violation(f"the memory has grown by {grown:.0f} MB")

    def _outcome(self, begin: Sample, end: Sample) -> dict[str, Any]:
        tally = self.tally
        return {
            "operations": tally.operations,
            "outcomes": [[*key, count] for key, count in tally.outcomes.items()],
            "longest": tally.longest,
            "confirmed": tally.confirmed,
            "disturbances": tally.disturbances,
            "launches": tally.launches,
            "violations": tally.violations,
            "more_violations": tally.more_violations,
            "begin": asdict(begin),
            "end": asdict(end),
            "buffers": str(self.home.buffers),
            "database": str(self.home.database / "seamless.db"),
            "database_port": self.place.ports["database"],
            "samples": [[when, asdict(each)] for when, each in self.watch.samples],
        }

    # The parts.

    def _make_callers(self) -> list[Caller]:
        mains = {
            "host": host(self.plan.backend, self._prepare),
            "beside 1": beside,
            "beside 2": beside,
            "sync 1": synchronous,
            "sync 2": synchronous,
            "short": short_lived,
        }
        return [
            Caller(
                name,
                [self._customer(f"{name}, customer {n}") for n in range(CUSTOMERS[name])],
                self.gate,
                main,
                orders_jobs=name in ("host", "beside 1"),
            )
            for name, main in mains.items()
        ]

    def _customer(self, name: str) -> Customer:
        return Customer(name, self.plan.random(name), self.tally, self.ledger, self.place.archived)

    def _prepare(self) -> None:
        self.place.activate()
        self.prepared.set()


def _count_launches(tally: Tally) -> None:
    real = remote_http_launcher.run

    def run(config: dict[str, Any], **options: Any) -> dict[str, Any]:
        tool = config["key"].split("-")[0]
        try:
            result: dict[str, Any] = real(config, **options)
        except BaseException:
            tally.launched(f"{tool} (failed)")
            raise
        tally.launched(tool)
        return result

    remote_http_launcher.run = run


def main() -> None:
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    minutes, seed, backend = sys.argv[1:]
    home = Home(Path(os.environ["HOME"]))
    logging.basicConfig(
        filename=home.path / "soak.log",
        level=logging.WARNING,
        format="%(asctime)s %(threadName)s %(name)s %(levelname)s %(message)s",
    )
    logging.getLogger("seamless_remote").setLevel(logging.INFO)
    outcome = Session(Plan(float(minutes), int(seed), backend), home).run()
    (home.path / "outcome.json").write_text(json.dumps(outcome))


if __name__ == "__main__":
    main()
