"""An event between loops and threads: whoever waits for it is woken by it, and asks no clock."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import Future
from typing import TypeVar

import anyio

from seamless_remote.nursery.waiter import wait_for

T = TypeVar("T")

LONG = 60.0  # seconds after which a test that waits in vain fails


class Signal(threading.Event):
    """A thread's event that tasks can wait for as well, in any loop."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[Future[None]] = []

    def set(self) -> None:
        super().set()
        with contextlib.suppress(IndexError):
            while True:
                self._waiting.pop().set_result(None)

    async def reached(self) -> None:
        """Wait for it, for ever if need be."""
        future: Future[None] = Future()
        self._waiting.append(future)
        if self.is_set():
            self.set()  # it may have come before this one was in the list
        await wait_for(future)


async def outcome_of(future: Future[T]) -> T:
    """The outcome of a thread that has to end."""
    with anyio.fail_after(LONG):
        return await wait_for(future)


async def until(signal: Signal) -> None:
    """Wait for a signal that has to come."""
    with anyio.fail_after(LONG):
        await signal.reached()
