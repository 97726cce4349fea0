"""Blocking work on daemon threads, shared by everyone who asks for the same thing at a time.

Executor threads will not do for work that may hang: a few dead names would occupy all of them, and
asyncio's hold up interpreter exit until the work returns.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..nursery.waiter import wait_for

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Failure:
    """What went wrong. Each waiter raises an error of its own: tracebacks grow on the way up."""

    kind: type[OSError]
    args: tuple[Any, ...]

    def error(self) -> OSError:
        return self.kind(*self.args)


class SharedThreads(Generic[K, T]):
    """Calls `work(key)` on a daemon thread; everyone who asks for that key meanwhile shares it.

    For tasks of any loop, in any thread. Results are not cached. A forked child starts from
    nothing.
    """

    def __init__(self, name: str, work: Callable[[K], T]) -> None:
        self._name = name
        self._work = work
        self._calls: dict[K, Future[T | _Failure]] = {}
        os.register_at_fork(after_in_child=self._calls.clear)

    async def result_of(self, key: K) -> T:
        """What `work(key)` returns; an OSError if it raises anything, or cannot be started.

        Cancelling this ends the wait, not the work, which others may wait for.
        """
        outcome = await wait_for(self._call(key))
        if isinstance(outcome, _Failure):
            raise outcome.error()
        return outcome

    def _call(self, key: K) -> Future[T | _Failure]:
        """The call under way for `key`, started if there is none."""
        call = self._calls.get(key)
        if call is not None:
            return call
        mine: Future[T | _Failure] = Future()
        # `setdefault` is atomic (without the GIL, too): of several threads that get here at once,
        # one starts the work. With no lock, a signal handler may come here at any point as well.
        call = self._calls.setdefault(key, mine)
        if call is mine:
            try:
                self._start(key, mine)
            except BaseException as exc:
                # After a KeyboardInterrupt the thread may run all the same; the first outcome wins.
                # At interpreter exit, or at the limit of threads, this is a RuntimeError.
                text = f"no thread could be started: {exc!r}"
                self._end(key, mine, _Failure(socket.gaierror, (errno.EAGAIN, text)))
                if not isinstance(exc, RuntimeError):
                    raise
        return call

    def _start(self, key: K, call: Future[T | _Failure]) -> None:
        threading.Thread(
            target=self._run, args=(key, call), name=f"seamless-remote {self._name}", daemon=True
        ).start()

    def _run(self, key: K, call: Future[T | _Failure]) -> None:
        outcome: T | _Failure
        try:
            outcome = self._work(key)
        except OSError as exc:
            outcome = _Failure(type(exc), exc.args)
        except Exception as exc:
            outcome = _Failure(OSError, (f"{type(exc).__name__}: {exc}",))
        self._end(key, call, outcome)

    def _end(self, key: K, call: Future[T | _Failure], outcome: T | _Failure) -> None:
        # First out of the table: whoever asks from now on starts a new call.
        self._calls.pop(key, None)
        with contextlib.suppress(InvalidStateError):
            call.set_result(outcome)
