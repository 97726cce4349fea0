"""Where a client finds its service: at a URL that is given, or wherever it has been launched."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from logging import INFO, WARNING

from ..errors import ConnectError, LaunchError, OwnLimitError, ServiceError
from ..launching.frontend_launch import is_gone
from ..launching.launch import Launch, Launched
from ..transport.connection import ClosedBeforeAnswerError
from ..transport.urls import Origin, parse_url
from .circuit import Circuit
from .retry_policy import RetryBudget

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A service's URL, taken apart once, and what is known of the service there.

    A service that is launched again has a new endpoint, with a closed circuit and a full budget.
    """

    url: str
    origin: Origin
    path: str
    launched: Launched | None = None
    circuit: Circuit = field(default_factory=Circuit, compare=False)
    budget: RetryBudget = field(default_factory=RetryBudget, compare=False)

    @property
    def is_tunneled(self) -> bool:
        """Whether the way there is a tunnel of this machine, which may be there without it."""
        return self.launched is not None and self.launched.is_tunneled

    @property
    def is_elsewhere(self) -> bool:
        """Whether it was launched on another machine."""
        return self.launched is not None and self.launched.frontend is not None

    @classmethod
    def at(cls, url: str, launched: Launched | None = None) -> Endpoint:
        """ValueError for a URL that is not plain `http://` or `https://`."""
        origin, path = parse_url(url)
        return cls(url.rstrip("/"), origin, path.rstrip("/"), launched)


class Address(ABC):
    """How a client finds its endpoint. Any thread may ask."""

    @property
    def has_run(self) -> bool:
        """Whether the service is known to have been running before."""
        return True

    @abstractmethod
    def current(self) -> Endpoint | None:
        """The endpoint as far as it is known, without launching anything."""

    @abstractmethod
    async def acquire(self) -> Endpoint:
        """The endpoint, launching the service if need be. LaunchError if that fails."""

    @abstractmethod
    def ensure(self) -> Endpoint:
        """The same in synchronous code: the calling thread waits."""

    def note_failure(self, endpoint: Endpoint, failure: ServiceError) -> None:
        """A request to `endpoint` failed, perhaps because nothing listens there any more."""
        refused = isinstance(failure, ConnectError) and not isinstance(failure, OwnLimitError)
        # A tunnel accepts, and closes when nothing listens at its other end.
        closed = isinstance(failure, ClosedBeforeAnswerError) and failure.is_first
        if refused or (closed and endpoint.is_tunneled):
            self.lose(endpoint)

    @abstractmethod
    def lose(self, endpoint: Endpoint) -> None:
        """Nothing listens at `endpoint` any more, or there is no way to it."""

    def describe(self, service: str) -> str:
        """The service and where it is, for messages."""
        endpoint = self.current()
        return service if endpoint is None else f"{service} at {endpoint.url}"


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

    def lose(self, endpoint: Endpoint) -> None:
        """It may come back where it was."""


class LaunchedAddress(Address):
    """A service that is launched on demand, and launched again when it is gone."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self._endpoint: Endpoint | None = None
        self._lock = threading.RLock()

    @property
    def has_run(self) -> bool:
        return self.launch.has_run

    def current(self) -> Endpoint | None:
        launched = self.launch.current()
        return None if launched is None else self._endpoint_of(launched)

    async def acquire(self) -> Endpoint:
        return self._endpoint_of(await self.launch.acquire())

    def ensure(self) -> Endpoint:
        return self._endpoint_of(self.launch.ensure())

    def lose(self, endpoint: Endpoint) -> None:
        if endpoint.launched is not None:
            endpoint.circuit.retire(time.monotonic())
            self.launch.drop(endpoint.launched)

    def describe(self, service: str) -> str:
        """The service with its project, stage and cluster, and where it is or was."""
        endpoint = self._endpoint
        if endpoint is None or endpoint.launched is None:
            return self.launch.name
        remote_url = endpoint.launched.remote_url
        tunnel = "" if remote_url == endpoint.url else f", through a tunnel to {remote_url}"
        return f"{self.launch.name} at {endpoint.url}{tunnel}"

    def start(self) -> None:
        """Begin launching in the background; a failure is logged, and met again when it is used."""
        self.launch.start().add_done_callback(partial(_log_failure, WARNING))

    def come_back(self) -> None:
        """Launch it again if it had been running and is gone. Blocks, for a check."""
        launched = self.launch.current()
        if launched is not None:
            if not is_gone(launched.launch_dict, launched.result):
                return
            self.lose(self._endpoint_of(launched))
        if self.launch.has_run:
            # If that fails, whoever needs it meets it: no more than a note is due here.
            self.launch.start(with_others=False).add_done_callback(partial(_log_failure, INFO))

    def _endpoint_of(self, launched: Launched) -> Endpoint:
        endpoint = self._endpoint
        if endpoint is not None and endpoint.launched is launched:
            return endpoint
        # One for all threads: it holds the circuit and the budget.
        with self._lock:
            if self._endpoint is None or self._endpoint.launched is not launched:
                self._endpoint = Endpoint.at(launched.url, launched)
            return self._endpoint


def _log_failure(level: int, future: Future[Launched]) -> None:
    error = future.exception()
    if error is not None:
        logger.log(level, "%s", error if isinstance(error, LaunchError) else repr(error))
