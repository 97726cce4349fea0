"""Event loops as seen from other threads: which one runs this code, and how to call into another.

A loop is named by its *key*: the asyncio loop object, or trio's token.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import sys
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

if TYPE_CHECKING:
    import trio

logger = logging.getLogger(__name__)

T = TypeVar("T")

PORTION = 32
"""How many posted calls are made in one turn of a loop: the loop's own work goes on in between."""


class LoopClosedError(RuntimeError):
    """The event loop has ended: nothing can be run in it any more."""


def running_loop() -> Any:
    """The key of the loop that runs this code, or None outside of one.

    An asyncio loop may run inside a trio task (Seamless does that in `Checksum.resolve()`), and
    trio may run as a guest of asyncio. The innermost one is asked for: in a guest run no asyncio
    task is current while trio's tasks run.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    if loop is not None and asyncio.current_task(loop) is not None:
        return loop
    if in_trio_task():
        return sys.modules["trio.lowlevel"].current_trio_token()
    return loop


def in_trio_task() -> bool:
    """Whether a trio task of this thread is running (with or without another loop inside it)."""
    # Another thread may be importing trio just now: then no task of it can run here.
    ask = getattr(sys.modules.get("trio.lowlevel"), "in_trio_task", None)
    return ask is not None and bool(ask())


def inside_trio_task(key: Any) -> bool:
    """Whether `key` is an asyncio loop that runs inside a trio task of this thread.

    Libraries that look for the current backend take such a loop for trio.
    """
    return isinstance(key, asyncio.AbstractEventLoop) and in_trio_task()


def runs_task_of(key: Any) -> bool:
    """Whether this code runs in a task of that loop (in a bare callback, none is current)."""
    if running_loop() is not key:
        return False
    return not isinstance(key, asyncio.AbstractEventLoop) or asyncio.current_task(key) is not None


class Mailbox(ABC):
    """Calls into one event loop, from any thread; one wake-up of the loop serves a burst of them.

    While somebody attends it (see `attend`), a task of the loop makes the calls; otherwise the
    wake-up makes them itself, outside of any task. They are made in the order of their posting, a
    bounded portion each turn of the loop.

    No call is lost while the loop lives: a poster appends its call first and looks for the mark of
    a wake-up under way second; whoever drains takes the mark off first and takes calls second, and
    puts it on again where calls are left. So a poster that found the mark is served by that round
    or the next, and one that did not find it sends a wake-up.
    """

    def __init__(self) -> None:
        self._calls: deque[Callable[[], object]] = deque()
        self._woken_at: float | None = None
        self._stalled_since: float | None = None
        self._bell: Callable[[], object] | None = None

    def post(self, *calls: Callable[[], object]) -> None:
        """Have `calls` called in the loop soon. LoopClosedError: the loop has ended."""
        self._calls.extend(calls)
        if self._woken_at is None:
            self._send_wake_up()
        elif self._wake_up_is_lost():
            self._calls.clear()
            raise LoopClosedError("the event loop is closed")

    def waiting_since(self) -> float | None:
        """When the wake-up was sent to which the loop has not come yet; None if there is none."""
        return self._woken_at

    def give_up(self, since: float) -> None:
        """Take the loop for stalled until it comes to the wake-up that waits `since` then."""
        self._stalled_since = since

    def is_stalled(self) -> bool:
        """Whether somebody gave the loop up, and it has not turned since."""
        return self._woken_at is not None and self._woken_at == self._stalled_since

    @abstractmethod
    def is_closed(self) -> bool:
        """Whether the loop has ended for good. From any thread."""

    def attend(self, bell: Callable[[], object]) -> None:
        """From now on a wake-up rings the bell, and a task of the loop calls `drain`."""
        self._bell = bell

    def leave(self, bell: Callable[[], object]) -> None:
        """Attend no longer, unless somebody else does by now; calls that are left are made now."""
        if self._bell == bell:  # not `is`: bound methods are made anew
            self._bell = None
        while self.drain():
            pass

    def drain(self) -> bool:
        """Make a portion of the posted calls; True if some are left. In the loop."""
        self._woken_at = None
        for _ in range(min(PORTION, len(self._calls))):
            call = self._calls.popleft()
            try:
                call()
            except Exception:
                logger.exception("a call into an event loop failed: %r", call)
        if not self._calls:
            return False
        self._woken_at = time.monotonic()
        return True

    def _woken(self) -> None:
        if self._bell is not None:
            self._bell()
        elif self.drain():
            self._wake()

    def _send_wake_up(self) -> None:
        self._woken_at = time.monotonic()
        try:
            self._wake()
        except BaseException as exc:
            # Also after a KeyboardInterrupt: a mark without a wake-up would silence the loop.
            self._woken_at = None
            if isinstance(exc, RuntimeError):
                self._calls.clear()
                raise LoopClosedError(str(exc)) from exc
            raise

    @abstractmethod
    def _wake(self) -> None:
        """Have `_woken` called in the loop. RuntimeError: it has ended."""

    @abstractmethod
    def _wake_up_is_lost(self) -> bool:
        """Whether the loop ended before it came to a wake-up that it had accepted."""


class _AsyncioMailbox(Mailbox):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        # Weak: the mailbox is kept in a table by its loop, and must not keep the loop alive there.
        self._loop = weakref.ref(loop)

    def is_closed(self) -> bool:
        loop = self._loop()
        return loop is None or loop.is_closed()

    def _wake(self) -> None:
        loop = self._loop()
        if loop is None:
            raise LoopClosedError("the event loop is gone")
        loop.call_soon_threadsafe(self._woken)

    def _wake_up_is_lost(self) -> bool:
        return self.is_closed()


class _TrioMailbox(Mailbox):
    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        super().__init__()
        self._token = weakref.ref(token)

    def is_closed(self) -> bool:
        token = self._token()
        if token is None:
            return True
        try:
            token.run_sync_soon(_nothing, idempotent=True)
        except RuntimeError:
            return True
        return False

    def _wake(self) -> None:
        token = self._token()
        if token is None:
            raise LoopClosedError("the trio run is gone")
        token.run_sync_soon(self._woken)

    def _wake_up_is_lost(self) -> bool:
        return False  # Trio makes every call that it accepted, at the latest when its run ends.


def _nothing() -> None:
    """Sent to a trio run to see whether it goes on."""


_mailboxes: weakref.WeakKeyDictionary[Any, Mailbox] = weakref.WeakKeyDictionary()
_mailboxes_lock = threading.Lock()


def mailbox_of(key: Any) -> Mailbox:
    """The mailbox of a loop, one a loop, made when it is first asked for."""
    mailbox = _mailboxes.get(key)
    if mailbox is None:
        with _mailboxes_lock:
            mailbox = _mailboxes.get(key)
            if mailbox is None:
                asyncio_loop = isinstance(key, asyncio.AbstractEventLoop)
                mailbox = _AsyncioMailbox(key) if asyncio_loop else _TrioMailbox(key)
                _mailboxes[key] = mailbox
    return mailbox


def forget_loops() -> None:
    """Start from nothing: the loops of a forked parent do not run here."""
    global _mailboxes, _mailboxes_lock
    _mailboxes = weakref.WeakKeyDictionary()
    _mailboxes_lock = threading.Lock()


async def wait_for(future: concurrent.futures.Future[T]) -> T:
    """The outcome of a thread's future, waited for in a task of any loop.

    Cancelling the wait leaves the future as it is. The future must come to an end.
    """
    done = anyio.Event()
    home = mailbox_of(running_loop())

    def wake(_: object) -> None:
        try:
            home.post(done.set)
        except LoopClosedError:
            logger.debug("an event loop ended while it waited for a thread")

    future.add_done_callback(wake)
    await done.wait()
    return future.result()
