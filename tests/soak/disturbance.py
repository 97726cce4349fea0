"""What befalls the services: at random, each by itself, they are killed, stopped, restarted."""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial

from .place import SERVICES, Place
from .plan import HEALTHCHECK_TIMEOUT, READ_TIMEOUT, Plan

# Ranges of seconds.
RECOVERY = {"kill": (8.0, 25.0), "restart": (8.0, 25.0), "stop": (1.0, 10.0)}  # peace before each
SHORT_STOP = (0.1, HEALTHCHECK_TIMEOUT)
LONG_STOP = (HEALTHCHECK_TIMEOUT, 2 * READ_TIMEOUT)
DOWN = (0.0, 3.0)  # before an extern service that was ended runs again
BETWEEN_EVENTS = (1.0, 8.0)


class Disturber:
    """Harms each service on a thread of its own, between `start` and `leave_in_peace`.

    `events` are things that happen in the client process itself, by name. `happened` counts all.
    """

    def __init__(self, plan: Plan, place: Place, events: Mapping[str, Callable[[], None]]) -> None:
        self.last = "nothing yet"
        self.happened: Counter[str] = Counter()
        self._plan = plan
        self._place = place
        self._events = events
        self.peace = threading.Event()
        self._lock = threading.Lock()

    def start(self, threads: Executor) -> None:
        works = {name: partial(self._harm, name) for name in SERVICES}
        works["events"] = partial(self._let_happen)
        self._running = {
            name: threads.submit(self._repeat, work, self._plan.random(name))
            for name, work in works.items()
        }

    def leave_in_peace(self) -> list[str]:
        """End, and say what failed. What was stopped or is extern runs again then."""
        self.peace.set()
        failures = {name: running.exception() for name, running in self._running.items()}
        return [f"disturbing {name}: {exc!r}" for name, exc in failures.items() if exc]

    def _repeat(self, work: Callable[[random.Random], None], draw: random.Random) -> None:
        while not self.peace.is_set():
            work(draw)

    def _let_happen(self, draw: random.Random) -> None:
        if self._pause(draw, BETWEEN_EVENTS):
            name = draw.choice(list(self._events))
            self._note(name)
            self._events[name]()

    def _harm(self, service: str, draw: random.Random) -> None:
        kind = draw.choice(["kill", "restart", "stop", "stop"])
        if self._pause(draw, RECOVERY[kind]):
            if kind == "stop":
                self._stop(service, draw)
            else:
                self._end(service, draw, kind)

    def _stop(self, service: str, draw: random.Random) -> None:
        """Stop a service for a while; it goes on then, or is killed as it stands."""
        long = draw.random() < 0.35
        if not self._place.signal(service, signal.SIGSTOP):
            return
        self._note(f"{'long' if long else 'short'} stop of {service}")
        try:
            self._pause(draw, LONG_STOP if long else SHORT_STOP)
            if draw.random() < 0.15:
                self._end(service, draw, "kill")
        finally:
            self._place.signal(service, signal.SIGCONT)

    def _end(self, service: str, draw: random.Random, kind: str) -> None:
        if self._place.signal(service, signal.SIGKILL if kind == "kill" else signal.SIGTERM):
            self._note(f"{kind} of {service}")
            self._pause(draw, DOWN)
            self._place.revive(service)

    def _pause(self, draw: random.Random, span: tuple[float, float]) -> bool:
        """Let some seconds pass; False where it is over before."""
        return not self.peace.wait(draw.uniform(*span))

    def _note(self, what: str) -> None:
        self.last = what
        with self._lock:
            self.happened[what] += 1
