"""What befalls the services: at random, each by itself, they are killed, stopped, restarted."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import psutil
from services import Home, Service

from .plan import HEALTHCHECK_TIMEOUT, READ_TIMEOUT, Plan
from .tally import Tally

RECOVERY = {"kill": (8.0, 25.0), "restart": (8.0, 25.0), "stop": (1.0, 10.0)}
"""Seconds for which a service is left in peace after each: to launch one again takes several."""

SHORT_STOP = (0.1, HEALTHCHECK_TIMEOUT)
LONG_STOP = (HEALTHCHECK_TIMEOUT, 2 * READ_TIMEOUT)
"""Seconds that a service is stopped: shorter than a ping may take, or longer."""

DOWN = (0.0, 3.0)
"""Seconds for which an extern service that was killed is away."""

BETWEEN_EVENTS = (1.0, 8.0)


class Target(Protocol):
    """A service that can be harmed."""

    name: str

    def signal(self, number: signal.Signals) -> bool:
        """Send it a signal; False where it does not run."""

    def revive(self) -> None:
        """Start it again, unless somebody else does."""


@dataclass
class LaunchedTarget:
    """A service that the clients have launched, and launch again: found by the launcher's state."""

    name: str
    home: Home

    def signal(self, number: signal.Signals) -> bool:
        for key, state in self.home.services().items():
            if not key.startswith(f"{self.name}-"):
                continue
            # The state may be that of a process that has ended, and its number another's by now.
            with contextlib.suppress(psutil.Error, KeyError, ProcessLookupError):
                if psutil.Process(state["pid"]).environ().get("HOME") == str(self.home.path):
                    # The launcher makes each service the leader of a session of its own.
                    os.killpg(state["pid"], number)
                    return True
        return False

    def revive(self) -> None:
        """Whoever needs it launches it."""


@dataclass
class ExternTarget:
    """A service that was there before, and that comes back at its URL when somebody restarts it."""

    name: str
    service: Service

    def signal(self, number: signal.Signals) -> bool:
        if self.service.process.poll() is not None:
            return False
        # It leads a session of its own, with its workers.
        os.killpg(self.service.process.pid, number)
        return True

    def revive(self) -> None:
        self.service.restart()


class Disturber:
    """Harms targets, on a thread for each, between `start` and `leave_in_peace`.

    `events` are things that happen in the client process itself: each by its name.
    """

    def __init__(
        self,
        plan: Plan,
        targets: Sequence[Target],
        events: Mapping[str, Callable[[], None]],
        tally: Tally,
    ) -> None:
        self.last = "nothing yet"
        self._targets = targets
        self._events = events
        self._tally = tally
        self._peace = threading.Event()
        names = ["events", *(target.name for target in targets)]
        works = [self._make_events_happen, *(self._harmer(target) for target in targets)]
        self._threads = [
            threading.Thread(
                target=self._run, args=(work, plan.random(name)), name=f"soak disturber of {name}"
            )
            for name, work in zip(names, works, strict=True)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def leave_in_peace(self) -> None:
        """End; what was stopped goes on, and what is extern and was killed runs again."""
        self._peace.set()
        for thread in self._threads:
            thread.join()

    def _run(self, work: Callable[[random.Random], None], draw: random.Random) -> None:
        try:
            while not self._peace.is_set():
                work(draw)
        except Exception as exc:
            self._tally.violation(f"{threading.current_thread().name} failed: {exc!r}")

    def _make_events_happen(self, draw: random.Random) -> None:
        if self._pause(draw, BETWEEN_EVENTS):
            name = draw.choice(list(self._events))
            self._note(name)
            self._events[name]()

    def _harmer(self, target: Target) -> Callable[[random.Random], None]:
        def harm(draw: random.Random) -> None:
            kind = draw.choice(["kill", "restart", "stop", "stop"])
            if self._pause(draw, RECOVERY[kind]):
                if kind == "stop":
                    self._stop(target, draw)
                else:
                    self._end(target, draw, kind)

        return harm

    def _stop(self, target: Target, draw: random.Random) -> None:
        """Stop a service for a while; it goes on then, or is killed as it stands."""
        long = draw.random() < 0.35
        if not target.signal(signal.SIGSTOP):
            return
        self._note(f"{'long' if long else 'short'} stop of {target.name}")
        try:
            self._pause(draw, LONG_STOP if long else SHORT_STOP)
            if draw.random() < 0.15:
                self._end(target, draw, "kill")
        finally:
            target.signal(signal.SIGCONT)

    def _end(self, target: Target, draw: random.Random, kind: str) -> None:
        if target.signal(signal.SIGKILL if kind == "kill" else signal.SIGTERM):
            self._note(f"{kind} of {target.name}")
            self._pause(draw, DOWN)
            target.revive()

    def _pause(self, draw: random.Random, span: tuple[float, float]) -> bool:
        """Let some seconds pass; False where it is over before."""
        return not self._peace.wait(draw.uniform(*span))

    def _note(self, what: str) -> None:
        self.last = what
        self._tally.disturbed(what)
