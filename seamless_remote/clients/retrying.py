"""One call's tries at one service: again after transient failures, and not while it is known to
be in trouble.

What happens to a try:

- it counts: its outcome, or an error that no repetition can change, is the call's.
- it fails in a way that may pass: another one follows after a pause, `max_tries` in all, unless
  the call's deadline would be over by then. A launched service that is gone is launched again.
- it is held: the service's circuit is open, or its retry budget is spent. The call looks again
  and again, without a request, until the trouble has lasted for `HOLD_PATIENCE`; a call that comes
  later than that fails at once, unless the probe is due and it is the one to make it.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio

from .endpoint import Endpoint
from ..errors import (
    ConnectError,
    NurseryClosedError,
    RefusedError,
    RemoteError,
    ServiceError,
    ServiceTimeout,
)
from ..nursery.scope import Scope
from . import retry_policy as retry
from .circuit import CircuitOpenError

if TYPE_CHECKING:
    from .base import Client

logger = logging.getLogger(__name__)

T = TypeVar("T")
Attempt = Callable[..., Awaitable[T]]
"""One try of a request: `async def attempt(scope: Scope, endpoint: Endpoint, *args)`."""

HOLD_PATIENCE = 10.0
"""Seconds for which a service may be in trouble before its calls fail without a try."""

LONGEST_RETRY_AFTER = 60.0
"""Seconds that a service's wish to be left alone for a while is granted at most."""

LONGEST_LOOK = 1.0
"""Seconds between two looks of a held call at whether it may go on, at most."""


class Attempts(Generic[T]):
    """The tries of one call: `attempt`, with `args`; `what` names it in messages."""

    __slots__ = (
        "_args",
        "_attempt",
        "_client",
        "_held_since",
        "_last",
        "_scope",
        "_started",
        "_tries",
        "_what",
    )

    def __init__(
        self, client: Client, scope: Scope, what: str, attempt: Attempt[T], args: tuple[Any, ...]
    ) -> None:
        self._client = client
        self._scope = scope
        self._what = what
        self._attempt = attempt
        self._args = args
        self._started = time.monotonic()
        self._tries = 0
        self._last: ServiceError | None = None
        self._held_since: float | None = None

    async def run(self) -> T:
        """Try until it counts. `attempt` raises a ServiceError for what may pass.

        Raises:
            ServiceError: every try failed, or none could be made; it names service, URL, tries and
                the last cause.
            ServiceTimeout: the last try ended in one, or the caller's deadline left no time for
                another try.
        """
        while True:
            address = self._client.address
            endpoint = address.current() or await address.acquire()
            first = not self._tries and not endpoint.circuit.is_open
            if not (first or await self._may_go(endpoint)):
                await self._hold(endpoint)
                continue
            self._begin_try()
            try:
                outcome = await self._attempt(self._scope, endpoint, *self._args)
            except CircuitOpenError:
                self._tries -= 1
            except ServiceError as exc:
                await self._take_failure(endpoint, exc)
            except RemoteError:
                self._client.note_success(endpoint)
                raise
            else:
                self._client.note_success(endpoint)
                return outcome

    async def run_within(self, seconds: float) -> T:
        """The same, for so many seconds at most. ServiceTimeout: they ran out."""
        with anyio.move_on_after(seconds):
            return await self.run()
        raise self._failed(f"the total timeout of {seconds:g} s ran out", ServiceTimeout)

    async def _may_go(self, endpoint: Endpoint) -> bool:
        """Whether a request may be sent now."""
        if endpoint.circuit.is_open and not await self._probe(endpoint):
            return False
        return not self._tries or endpoint.budget.take(time.monotonic())

    def _begin_try(self) -> None:
        self._held_since = None
        self._tries += 1
        if self._tries > 1:
            self._client.note_retry()

    async def _take_failure(self, endpoint: Endpoint, exc: ServiceError) -> None:
        """Wait for the time of the next try, or raise what is to be said of the last one."""
        if isinstance(exc, NurseryClosedError):
            raise exc  # it says nothing about the service, and comes again at every try
        if self._scope.closed:
            raise NurseryClosedError(f"the remote nursery ended during {self._what}") from exc
        if not retry.is_transient_error(exc):
            raise exc
        self._last = exc
        self._client.note_failure(endpoint, exc)
        if self._tries >= self._scope.settings.max_tries:
            silent = isinstance(exc, ServiceTimeout)
            raise self._failed(kind=ServiceTimeout if silent else ServiceError) from exc
        pause = retry.pause(self._tries, random.random)
        if isinstance(exc, retry.TransientRefusal):
            pause = max(pause, min(exc.retry_after or 0.0, LONGEST_RETRY_AFTER))
        logger.debug("%s: %s; tried again in %.2f s", self._what, exc, pause)
        await self._sleep(pause)

    async def _probe(self, endpoint: Endpoint) -> bool:
        """Whether the service is well again, as far as this call is the one to find out."""
        circuit = endpoint.circuit
        if not circuit.may_probe(time.monotonic()):
            return False
        answered: bool | None = None
        try:
            # A ping that succeeds closes the circuit itself.
            await self._client.ping(self._scope, endpoint)
            answered = True
        except NurseryClosedError:
            raise
        except (ServiceError, RefusedError) as exc:
            answered = False
            if isinstance(exc, ConnectError) and not self._scope.closed:
                self._client.address.lost(endpoint)
        finally:
            if not answered:
                circuit.probed(time.monotonic(), answered, random.random)
        return answered

    async def _hold(self, endpoint: Endpoint) -> None:
        """Wait a moment without a request, or raise that there has been enough of it."""
        now = time.monotonic()
        if self._held_since is None:
            self._held_since = now
        circuit = endpoint.circuit
        if max(circuit.open_for(now), now - self._held_since) >= HOLD_PATIENCE:
            trouble = (
                f"it has been failing for {circuit.open_for(now):.0f} s, lately with: "
                f"{circuit.last_failure}; requests to it wait until a ping of it succeeds"
                if circuit.is_open
                else "too many requests to it had to be repeated"
            )
            raise self._failed(trouble)
        looks = 1 + int((now - self._held_since) / LONGEST_LOOK)
        await self._sleep(retry.pause(looks, random.random, cap=LONGEST_LOOK))

    async def _sleep(self, seconds: float) -> None:
        """Wait, unless the caller's deadline comes before that: then what is known is said now."""
        now, deadline = anyio.current_time(), anyio.current_effective_deadline()
        if now < deadline <= now + seconds:
            raise self._failed("its deadline leaves no time for another try", ServiceTimeout)
        await anyio.sleep(seconds)

    def _failed(
        self, trouble: str | None = None, kind: type[ServiceError] = ServiceError
    ) -> ServiceError:
        client = self._client
        elapsed = time.monotonic() - self._started
        tries = ("was not tried", "failed", f"failed {self._tries} times")[min(self._tries, 2)]
        last = None if self._last is None else f"last: {self._last}"
        causes = "; ".join(cause for cause in (last, trouble) if cause is not None)
        return kind(
            f"{client.service} at {client.url}: {self._what} {tries} in {elapsed:.1f} s; {causes}. "
            "Is the service running, and can this machine reach it?"
        )
