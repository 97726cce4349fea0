"""The place where a call runs: the loop-bound things it uses, which end with that place.

There are two such places: the remote nursery, and a scope that is opened for one call when the
nursery's loop cannot take it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager, nullcontext
from types import TracebackType
from typing import Any, ClassVar, Protocol, TypeVar

import anyio

from ..errors import NurseryClosedError
from ..settings import Settings

T = TypeVar("T")


class Resource(Protocol):
    """Something bound to one event loop, such as a set of connections."""

    async def upkeep(self) -> None:
        """What it needs done in the background, until cancelled. Run in the nursery, supervised."""

    async def aclose(self) -> None:
        """Give everything up at once; whoever still uses it gets an error."""


R = TypeVar("R", bound=Resource)


class Scope(ABC):
    """What a call is given to run with.

    When the scope ends, its calls are cancelled first, and have the grace period for their
    clean-up, while the resources can still be used.
    """

    alone: ClassVar[bool] = False
    """Whether it is for one call only, which the nursery's loop cannot take, or not go on with."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._resources: dict[Any, Resource] = {}
        self._closed = False

    def resource(self, make: Callable[[Scope], R]) -> R:
        """The resource that `make` makes, one a scope, made when it is first asked for.

        NurseryClosedError: the scope has ended.
        """
        resource: Any = self._resources.get(make)
        if resource is None:
            self._require_open()
            resource = self._resources[make] = make(self)
            self._adopt(resource)
        found: R = resource
        return found

    def has(self, make: Callable[[Scope], R]) -> R | None:
        """The resource that `make` made here, if it did."""
        found: Any = self._resources.get(make)
        return found  # type: ignore[no-any-return]

    @property
    @abstractmethod
    def limiter(self) -> AbstractAsyncContextManager[None]:
        """The process's bound on database requests in flight: first come, first served."""

    @abstractmethod
    async def share(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """The outcome of `work`, done once for all callers of this scope that ask for `key`.

        Cancelling one of them leaves the others theirs; cancelling the last one cancels the work.
        """

    def _adopt(self, resource: Resource) -> None:  # noqa: B027 - nothing is an answer
        """Called with each resource when it has been made."""

    @property
    def closed(self) -> bool:
        """Whether the scope has ended, and its resources with it."""
        return self._closed

    def _require_open(self) -> None:
        if self._closed:
            raise NurseryClosedError("the remote nursery has ended: this call cannot go on")

    async def aclose_resources(self) -> None:
        """Close all resources, the last made first. Runs to its end even when cancelled."""
        self._closed = True
        with anyio.CancelScope(shield=True):
            while self._resources:
                _, resource = self._resources.popitem()
                await resource.aclose()


class LoneScope(Scope):
    """A scope for one call, in the caller's own loop; its connections end with the call.

    It does not wait for the limiter: the slots may be held by requests of a loop that does not
    turn, and waiting for those could last for ever.
    """

    alone = True

    @property
    def limiter(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def share(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        return await work()

    async def __aenter__(self) -> LoneScope:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose_resources()
