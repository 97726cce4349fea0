"""Handing a call over from a foreign event loop to the nursery, and its outcome back.

A handed-over call is in one of these states, and the claim (a lock that is taken once and never
given back) decides who runs it:

- waiting: it lies in the nursery's mailbox, or in its line (see `line`);
- taken up: the nursery claimed it, and will deliver an outcome whatever happens;
- repeated: the nursery took it up, and its loop stands still since: where the operation may be
  repeated, the caller runs it itself, and what the nursery began is cancelled when it goes on;
- taken back: the caller claimed it, because the nursery's loop did not turn for as long as the
  caller's patience (several times as long, where it had put the call in line), and runs it itself;
  or because the caller was cancelled: then it never runs;
- returned: the nursery claimed it when it was ending, and the caller looks for another place;
- done: the outcome is there, and the news of it is on its way to the caller's loop;
- lost: the nursery's loop was closed when it had taken the call up, and not done it.

The caller's loop may end at any moment: then the outcome is dropped. While it waits for one, it
watches the nursery's loop (see `watch`), whose standing still, or end, settles what the caller
takes back, repeats or has lost.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import anyio

from ..errors import NurseryClosedError
from .event_loops import LoopClosedError, Mailbox
from .outbox import Outbox
from .scope import Scope
from .watch import Watch, Watched

logger = logging.getLogger(__name__)

T = TypeVar("T")
Operation = Callable[..., Awaitable[T]]
"""`async def operation(scope: Scope, *args)`: what a client does, wherever it is run."""


class _Decision(enum.Enum):
    """What the caller decided while no outcome was there."""

    WAIT = enum.auto()
    RUN_HERE = enum.auto()
    LOST = enum.auto()


class Handover(Watched, Generic[T]):
    """One call on its way between two loops."""

    __slots__ = (
        "_args",
        "_cancelled",
        "_claim",
        "_decision",
        "_done",
        "_error",
        "_home",
        "_nursery",
        "_operation",
        "_repeatable",
        "_running",
        "_value",
        "in_line",
        "limited",
        "returned",
    )

    def __init__(
        self,
        operation: Operation[T],
        args: tuple[Any, ...],
        home: Mailbox,
        nursery: Mailbox,
        *,
        repeatable: bool = False,
        limited: bool = False,
    ) -> None:
        super().__init__()
        self._operation = operation
        self._args = args
        self._home = home
        self._nursery = nursery
        self._repeatable = repeatable
        self.limited = limited
        self.in_line = False  # set in the nursery's loop, when it puts the call in line
        self._claim = threading.Lock()
        self._decision = _Decision.WAIT
        self._done = False
        self._running: anyio.CancelScope | None = None
        self._cancelled = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self.returned = False

    def claim(self) -> bool:
        """True for the first who asks, on either side."""
        return self._claim.acquire(blocking=False)

    def is_claimed(self) -> bool:
        """Whether one side has claimed it."""
        return self._claim.locked()

    # In the nursery's loop.

    async def run(
        self,
        scope: Scope,
        shield: anyio.CancelScope,
        ended: Callable[[Handover[T]], object],
    ) -> bool:
        """Run the claimed call; `ended` is called when its outcome or error is there.

        Only `cancel` cancels it, by the new `shield` in which it runs: a cancellation of the
        nursery's block leaves it its grace. True where it came to its value undisturbed: no error
        and no cancellation is left in its task.
        """
        self._error = NurseryClosedError("the remote nursery ended while this call was running")
        try:
            with shield as self._running:
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
            # Before the news of it: where none comes any more, this says that there is some.
            self._done = True
            ended(self)
        return self._error is None and not self._cancelled

    def return_unclaimed(self, outbox: Outbox) -> None:
        """Give the call back to its caller: the nursery ends before it has begun."""
        if self.claim():
            self.returned = self._done = True
            self.go_home(outbox)

    def fail(self, error: BaseException) -> None:
        """Have an error for the outcome of a claimed call that could not be started."""
        self._error = error
        self._done = True

    def go_home(self, outbox: Outbox, *, last: bool = False) -> None:
        """Send the news to the caller's loop: the call is done, and maybe the last one for now."""
        outbox.send(self._home, self.wake, last=last)

    def cancel(self) -> None:
        """Cancel the call: its caller was cancelled, or the nursery's grace is over."""
        self._cancelled = True
        if self._running is not None:
            self._running.cancel()

    # In the caller's loop.

    async def wait(self, watch: Watch, grace: float) -> bool:
        """Wait for the outcome. False: the call is the caller's to run.

        It is taken back when the nursery's loop has not turned for the patience of the watch, or is
        closed; one in line, and a repeatable one that the nursery has taken up, when it has not for
        several times as long. Cancelling the wait withdraws a call that waits, and cancels one that
        runs, for whose end it then waits, at most `grace` seconds.

        NurseryClosedError: the nursery's loop was closed under the call.
        """
        try:
            await watch.wait(self)
        except GeneratorExit:
            if not self.is_settled():
                self._withdraw()
            raise
        except BaseException:
            # A decision and a cancellation may come together.
            if not self.is_settled() and self._withdraw():
                with anyio.move_on_after(grace, shield=True):
                    await self.next_wake_up().wait()
            raise
        if self._decision is _Decision.LOST:
            raise NurseryClosedError(
                "the event loop of the remote nursery was closed under this call"
            )
        return self._decision is _Decision.WAIT

    def is_settled(self) -> bool:
        return self._done or self._decision is not _Decision.WAIT

    def loop_closed(self) -> None:
        # What is done by now is all that will be; the news of it may never come.
        if not self.is_settled():
            self._decision = _Decision.RUN_HERE if self.claim() else _Decision.LOST
        self.wake()

    def loop_stands_still(self, *, for_long: bool) -> None:
        if not self.is_settled():
            if self.in_line and not for_long:
                return  # the loop has turned for it: alone, the many that wait would be a storm
            if not self.claim():
                if not (for_long and self._repeatable):
                    return
                self._withdraw()
            self._decision = _Decision.RUN_HERE
        self.wake()

    def _withdraw(self) -> bool:
        """Have the call not run, or not run on. True: it has to be waited for."""
        if self.claim() or self._done:
            return False
        try:
            self._nursery.post(self.cancel)
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
