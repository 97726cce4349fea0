"""One call's tries at one service: again after transient failures, and not while it is known to
be in trouble.

What happens to a try:

- it counts: its outcome, or an error that no repetition can change, is the call's.
- it fails in a way that may pass: another one follows after a pause, `max_tries` in all, unless the
  call's deadline comes first. One that moved on (a download that resumes) is not counted.
- it is held: the service's circuit is open, its retry budget is spent, or this process lacks what a
  connection takes. The call looks again and again, until the trouble has lasted for `PATIENCE`. A
  call that comes later fails at once where a circuit is open, unless a probe is due and it is the
  one to make it.

A service that has been launched again is a new endpoint: tries count anew, and the first one there
is no retry. As many endpoints as tries may fail. A launch that fails is a failed try, too, if the
service had been running before; such a call has patience.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

import anyio

from ..errors import (
    LaunchError,
    OwnLimitError,
    RefusedError,
    RemoteError,
    ServiceError,
    ServiceTimeout,
)
from ..nursery.calls import Call
from ..nursery.deadline import TimeLimit
from ..transport.messages import OverlongAnswerError
from . import retry_policy
from .circuit import CircuitOpenError
from .counters import Counters
from .endpoint import Address, Endpoint

logger = logging.getLogger(__name__)

T = TypeVar("T")
Attempt = Callable[..., Awaitable[T]]
"""One try of a request: `async def attempt(call: Call, endpoint: Endpoint, *args)`."""

PATIENCE = 10.0
"""Seconds for which a service may be in trouble before its calls fail without a try."""

LONGEST_RETRY_AFTER = 60.0
"""Seconds to wait, at most, when a service asks for a pause."""

LONGEST_LOOK = 1.0
"""Seconds, at most, between two looks of a held call at whether it may go on."""


class Tried(Protocol):
    """What the tries need of a client."""

    @property
    def address(self) -> Address: ...

    @property
    def counters(self) -> Counters: ...

    def describe(self) -> str:
        """The service and its URL, for messages."""

    async def ping(self, call: Call, endpoint: Endpoint) -> None:
        """Ask the service for its health. ServiceError or RefusedError: it is not well."""

    def note_retry(self) -> None:
        """A request is made again."""

    def note_success(self, endpoint: Endpoint) -> None:
        """A request was answered, be it with a refusal."""

    def note_failure(self, endpoint: Endpoint, failure: ServiceError) -> None:
        """A request failed in a way that may pass."""


class Tries(Generic[T]):
    """The tries of one call: `attempt`, with `args`; `what` names it in messages.

    `progress` tells how far the attempts have come, in a number that grows.
    """

    __slots__ = ("_args", "_attempt", "_call", "_client", "_endpoint", "_endpoints", "_failures",
                 "_held_since", "_last", "_progress", "_started", "_tried_here", "_tries",
                 "_what")  # fmt: skip

    def __init__(
        self,
        client: Tried,
        call: Call,
        what: str,
        attempt: Attempt[T],
        args: tuple[Any, ...],
        progress: Callable[[], int] | None = None,
    ) -> None:
        self._client = client
        self._call = call
        self._what = what
        self._attempt = attempt
        self._args = args
        self._progress = progress
        self._started = time.monotonic()
        self._endpoint: Endpoint | None = None
        self._endpoints = 0
        self._tries = 0
        self._tried_here = False
        self._failures = 0
        """Failed tries in a row, at this endpoint, that did not move on."""
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
        counters = self._client.counters
        counters.calls.add(id(self))
        try:
            while True:
                endpoint = self._client.address.current() or await self._launched()
                if endpoint is None:
                    continue
                # Nearly always there is nothing to wait for, not even a coroutine.
                first = self._endpoint is None and not endpoint.circuit.is_open
                if first:
                    self._endpoint, self._endpoints = endpoint, 1
                elif not await self._may_go(endpoint):
                    await self._hold(endpoint)
                    continue
                is_retry = self._tried_here
                self._begin_try()
                before = 0 if self._progress is None else self._progress()
                try:
                    outcome = await self._attempt(self._call, endpoint, *self._args)
                except CircuitOpenError:
                    self._tries -= 1
                except OwnLimitError as exc:
                    self._tries -= 1
                    self._tried_here = is_retry
                    self._last = exc
                    await self._hold(endpoint)
                except ServiceError as exc:
                    moved = self._progress is not None and self._progress() > before
                    await self._take_failure(endpoint, exc, moved)
                except RemoteError:
                    self._client.note_success(endpoint)
                    raise
                else:
                    self._client.note_success(endpoint)
                    return outcome
        finally:
            counters.calls.discard(id(self))

    async def run_within(self, seconds: float) -> T:
        """The same, for so many seconds at most. ServiceTimeout: they ran out."""
        with TimeLimit(seconds):
            return await self.run()
        raise self._failed(f"the total timeout of {seconds:g} s ran out", ServiceTimeout)

    async def _launched(self) -> Endpoint | None:
        """The endpoint once the service has been launched; None after a launch that failed."""
        address = self._client.address
        self._call.waits_for = "the launch of its service"
        try:
            return await address.acquire()
        except LaunchError as exc:
            if not address.has_run:
                raise
            self._last = exc
            self._failures += 1
            lasted = time.monotonic() - self._started
            if self._failures >= self._call.settings.max_tries and lasted >= PATIENCE:
                raise self._failed() from exc
            await self._pause(exc)
            return None

    async def _may_go(self, endpoint: Endpoint) -> bool:
        """Whether a request may be sent now."""
        if endpoint is not self._endpoint:
            self._endpoint = endpoint
            self._endpoints += 1
            self._failures = 0
            self._tried_here = False
        if endpoint.circuit.is_open and not await self._probe(endpoint):
            return False
        # The first request at an endpoint is no retry.
        return not self._tried_here or endpoint.budget.take(time.monotonic())

    def _begin_try(self) -> None:
        self._tried_here = True
        self._tries += 1
        if self._tries > 1:
            self._client.note_retry()

    async def _take_failure(self, endpoint: Endpoint, exc: ServiceError, moved: bool) -> None:
        """Wait for the time of the next try, or raise what there is to say about the last one."""
        self._last = exc
        self._held_since = None
        if isinstance(exc, OverlongAnswerError):
            raise self._failed(advice="Such an answer is not asked for again") from exc
        if not retry_policy.is_transient_error(exc):
            raise exc
        self._client.note_failure(endpoint, exc)
        self._failures = 0 if moved else self._failures + 1
        limit = self._call.settings.max_tries
        if self._failures >= limit or self._endpoints > limit:
            silent = isinstance(exc, ServiceTimeout)
            raise self._failed(kind=ServiceTimeout if silent else ServiceError) from exc
        await self._pause(exc)

    async def _pause(self, exc: ServiceError) -> None:
        pause = retry_policy.pause(max(1, self._failures), random.random)
        if isinstance(exc, retry_policy.TransientRefusal):
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
            await self._client.ping(self._call, endpoint)
            answered = True
        except (ServiceError, RefusedError) as exc:
            answered = None if isinstance(exc, OwnLimitError) else False
            if isinstance(exc, ServiceError):
                self._client.address.note_failure(endpoint, exc)
        finally:
            if not answered:
                circuit.probed(time.monotonic(), answered, random.random)
        return bool(answered)

    async def _hold(self, endpoint: Endpoint) -> None:
        """Wait a moment without a request, or raise that there has been enough of it."""
        now = time.monotonic()
        if self._held_since is None:
            self._held_since = now
        circuit = endpoint.circuit
        if max(circuit.open_for(now), now - self._held_since) >= PATIENCE:
            if isinstance(self._last, OwnLimitError):
                advice = "Close what this process does not need, or raise its limit"
                raise self._failed(kind=OwnLimitError, advice=advice)
            trouble = (
                f"it has been failing for {circuit.open_for(now):.0f} s, last with: "
                f"{circuit.last_failure}; requests to it wait until a ping of it succeeds"
                if circuit.is_open
                else "too many requests to it had to be repeated"
            )
            raise self._failed(trouble)
        looks = 1 + int((now - self._held_since) / LONGEST_LOOK)
        await self._sleep(retry_policy.pause(looks, random.random, cap=LONGEST_LOOK))

    async def _sleep(self, seconds: float) -> None:
        """Sleep; raise now if the caller's deadline comes first."""
        reason = "" if self._last is None else f": {self._last}"
        self._call.waits_for = f"its next try{reason}"
        now, deadline = anyio.current_time(), anyio.current_effective_deadline()
        if now < deadline <= now + seconds and not self._call.ending:
            raise self._failed("its deadline leaves no time for another try", ServiceTimeout)
        await anyio.sleep(seconds)

    def _failed(
        self,
        trouble: str | None = None,
        kind: type[ServiceError] = ServiceError,
        advice: str = "Is the service running, and can this machine reach it?",
    ) -> ServiceError:
        elapsed = time.monotonic() - self._started
        tries = ("was not tried", "failed", f"failed {self._tries} times")[min(self._tries, 2)]
        last = None if self._last is None else f"last: {self._last}"
        causes = "; ".join(cause for cause in (last, trouble) if cause is not None)
        what = f"{self._client.describe()}: {self._what}"
        return kind(f"{what} {tries} in {elapsed:.1f} s; {causes}. {advice}")
