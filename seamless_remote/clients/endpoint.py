"""Where a client finds its service: at a URL that is given, or wherever it has been launched."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from concurrent.futures import Future
from dataclasses import dataclass, field

from ..errors import LaunchError
from ..launching.launch import Launch, Launched
from .circuit import Circuit
from ..transport.messages import Origin, parse_url
from .retry_policy import RetryBudget

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A service's URL, taken apart once, and what is known of the service there.

    A service that is launched again is another one: it begins with a closed circuit.
    """

    url: str
    origin: Origin
    path: str
    launched: Launched | None = None
    circuit: Circuit = field(default_factory=Circuit, compare=False)
    budget: RetryBudget = field(default_factory=RetryBudget, compare=False)

    @classmethod
    def at(cls, url: str, launched: Launched | None = None) -> Endpoint:
        """ValueError for a URL that is not plain `http://` or `https://`."""
        origin, path = parse_url(url)
        return cls(url.rstrip("/"), origin, path.rstrip("/"), launched)


class Address(ABC):
    """How a client gets at its endpoint. Any thread may ask."""

    @abstractmethod
    def current(self) -> Endpoint | None:
        """The endpoint as far as it is known, without launching anything."""

    @abstractmethod
    async def acquire(self) -> Endpoint:
        """The endpoint, launching the service if need be. LaunchError if that fails."""

    @abstractmethod
    def ensure(self) -> Endpoint:
        """The same in synchronous code: the calling thread waits."""

    @abstractmethod
    def lost(self, endpoint: Endpoint) -> None:
        """Nothing listens at `endpoint` any more."""


class KnownAddress(Address):
    """An extern service: its URL is given, and whether it runs is somebody else's business."""

    def __init__(self, url: str) -> None:
        self._endpoint = Endpoint.at(url)

    def current(self) -> Endpoint:
        return self._endpoint

    async def acquire(self) -> Endpoint:
        return self._endpoint

    def ensure(self) -> Endpoint:
        return self._endpoint

    def lost(self, endpoint: Endpoint) -> None:
        """It may come back where it was."""


class LaunchedAddress(Address):
    """A service that is launched on demand, and launched again when it is gone."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self._endpoint: Endpoint | None = None

    def current(self) -> Endpoint | None:
        launched = self.launch.current()
        return None if launched is None else self._endpoint_of(launched)

    async def acquire(self) -> Endpoint:
        return self._endpoint_of(await self.launch.acquire())

    def ensure(self) -> Endpoint:
        return self._endpoint_of(self.launch.ensure())

    def lost(self, endpoint: Endpoint) -> None:
        if endpoint.launched is not None:
            endpoint.circuit.retire(time.monotonic())
            self.launch.drop(endpoint.launched)

    def start(self) -> None:
        """Begin launching in the background; a failure is logged, and met again when it is used."""
        self.launch.start().add_done_callback(_log_failure)

    def _endpoint_of(self, launched: Launched) -> Endpoint:
        endpoint = self._endpoint
        if endpoint is None or endpoint.launched is not launched:
            endpoint = self._endpoint = Endpoint.at(launched.url, launched)
        return endpoint


def _log_failure(future: Future[Launched]) -> None:
    error = future.exception()
    if error is not None:
        logger.warning("%s", error if isinstance(error, LaunchError) else repr(error))
