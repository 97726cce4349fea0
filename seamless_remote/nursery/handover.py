"""Handing a call over from a foreign event loop to the nursery, and its outcome back.

A handed-over call is in one of these states, and the claim (a lock that is taken once and never
given back) decides who runs it:

- waiting: it lies in the nursery's mailbox;
- taken up: the nursery claimed it, and will deliver an outcome whatever happens;
- repeated: the nursery took it up, and its loop stands still since: where the operation may be
  repeated, the caller runs it itself, and what the nursery began is cancelled when it goes on;
- taken back: the caller claimed it, because the nursery's loop did not turn for as long as the
  caller's patience, and runs it itself; or because the caller was cancelled: then it never runs;
- returned: the nursery claimed it when it was ending, and the caller looks for another place;
- done: the outcome is there, and the caller's loop has been woken.

The caller's loop may end at any moment: then the outcome is dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import anyio

from ..errors import NurseryClosedError
from .loops import LoopClosedError, Mailbox
from .scope import Scope

logger = logging.getLogger(__name__)

T = TypeVar("T")
Operation = Callable[..., Awaitable[T]]
"""`async def operation(scope: Scope, *args)`: what a client does, wherever it is run."""

LIVENESS_INTERVAL = 5.0
"""Seconds between two looks at the nursery's loop, at most, during a long call."""

STANDSTILL = 3
"""For how many times the patience a loop must stand still before a call that it has is repeated."""


def _nothing() -> None:
    """Posted to a loop to see whether it turns."""


class Handover(Generic[T]):
    """One call on its way between two loops."""

    __slots__ = (
        "_args",
        "_cancelled",
        "_claim",
        "_done",
        "_error",
        "_home",
        "_news",
        "_operation",
        "_repeatable",
        "_running",
        "_value",
        "returned",
    )

    def __init__(
        self,
        operation: Operation[T],
        args: tuple[Any, ...],
        home: Mailbox,
        *,
        repeatable: bool = False,
    ) -> None:
        self._operation = operation
        self._args = args
        self._home = home
        self._repeatable = repeatable
        self._claim = threading.Lock()
        self._news = anyio.Event()
        self._done = False
        self._running: anyio.CancelScope | None = None
        self._cancelled = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self.returned = False

    def claim(self) -> bool:
        """True for the first who asks, on either side."""
        return self._claim.acquire(blocking=False)

    # In the nursery's loop.

    async def run(self, scope: Scope) -> None:
        """Run the claimed call and send its outcome home; its errors go there too.

        Only `cancel` cancels it: a cancellation of the nursery's block leaves it its grace.
        """
        self._error = NurseryClosedError("the remote nursery ended while this call was running")
        try:
            with anyio.CancelScope(shield=True) as self._running:
                if self._cancelled:
                    self._running.cancel()
                self._value = await self._operation(scope, *self._args)
                self._error = None
        except Exception as exc:
            self._error = exc
        except anyio.get_cancelled_exc_class():
            # The operation awaited something that was cancelled elsewhere. Going on, this would end
            # the whole task group without a word; and the task ends here anyway.
            logger.warning("a call in the remote nursery was cancelled from outside of it")
        finally:
            self._running = None
            self._go_home()

    def return_unclaimed(self) -> None:
        """Give the call back to its caller: the nursery ends before it has begun."""
        if self.claim():
            self.returned = True
            self._go_home()

    def fail(self, error: BaseException) -> None:
        """Deliver an error for a claimed call that could not be started."""
        self._error = error
        self._go_home()

    def cancel(self) -> None:
        """Cancel the call: its caller was cancelled, or the nursery's grace is over."""
        self._cancelled = True
        if self._running is not None:
            self._running.cancel()

    def _go_home(self) -> None:
        # Before the news of it: once the nursery's loop is closed, this says whether any will come.
        self._done = True
        try:
            self._home.post(self._arrive)
        except LoopClosedError:
            logger.debug("the caller's event loop ended before the outcome of its call arrived")

    # In the caller's loop.

    def _arrive(self) -> None:
        self._news.set()

    async def wait(self, nursery: Mailbox, patience: float, grace: float) -> bool:
        """Wait for the outcome. False: the call is the caller's to run.

        It is taken back when the nursery's loop has not turned for `patience` seconds, or is
        closed; a repeatable one that the nursery has taken up, when it has not for three times as
        long. Cancelling the wait withdraws a call that waits, and cancels one that runs, for
        whose end it then waits, at most `grace` seconds.

        NurseryClosedError: the nursery's loop was closed under the call.
        """
        try:
            return await self._wait(nursery, patience)
        except NurseryClosedError:
            raise
        except GeneratorExit:
            self._withdraw(nursery)
            raise
        except BaseException:
            if self._withdraw(nursery):
                self._news = anyio.Event()
                with anyio.move_on_after(grace, shield=True):
                    await self._news.wait()
            raise

    async def _wait(self, nursery: Mailbox, patience: float) -> bool:
        # Twice half of the patience: were the whole process held up, the loop would look stalled to
        # everybody at once, before it had its chance to turn.
        interval = patience / 2
        seen: float | None = None
        while not self._done:
            await self._home.wait(self._news, interval)
            if self._done:
                break
            self._news = anyio.Event()
            since = nursery.waiting_since()
            if self._claim.locked():
                if nursery.is_closed() and not self._done:
                    raise NurseryClosedError(
                        "the event loop of the remote nursery was closed under this call"
                    )
                if self._repeatable and _stands_still(nursery, since, STANDSTILL * patience):
                    self._withdraw(nursery)
                    return False
                interval = min(2 * interval, LIVENESS_INTERVAL)
            elif nursery.is_closed():
                if self.claim():
                    return False
            elif since is not None and since == seen and self.claim():
                nursery.give_up(since)
                return False
            seen = since
        return True

    def _withdraw(self, nursery: Mailbox) -> bool:
        """Have the call not run, or not run on. True: it has to be waited for."""
        if self.claim() or self._done:
            return False
        try:
            nursery.post(self.cancel)
        except LoopClosedError:
            return False
        return True

    def outcome(self) -> T:
        """The value of a call that is done, or its error, raised with its traceback. Once."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # it refers to this frame
        value: T = self._value  # type: ignore[assignment]
        return value


def _stands_still(nursery: Mailbox, waiting_since: float | None, seconds: float) -> bool:
    """Whether the loop has not come to a wake-up for so long; one is sent to see, if none waits."""
    if waiting_since is not None:
        return time.monotonic() - waiting_since >= seconds
    try:
        nursery.post(_nothing)
    except LoopClosedError:
        logger.debug("the nursery's loop was closed under a call")
    return False
