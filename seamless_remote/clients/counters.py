"""What a client counts, and how it looks at one moment."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClientSnapshot:
    """One client: where it reaches its service, how that is, and what it has sent and received.

    `last_round_trip` is in seconds, from the last request's start to the head of its answer.
    """

    name: str
    url: str | None
    directory: str | None
    readonly: bool
    health: str
    last_round_trip: float | None
    requests: int
    retries: int
    bytes_sent: int
    bytes_received: int
    in_flight: int


class Counters:
    """What a client counts, for calls of any thread."""

    __slots__ = ("_lock", "bytes_received", "bytes_sent", "calls", "requests", "retries")

    def __init__(self) -> None:
        # Reentrant: a call that is destroyed with its loop is counted off wherever the collector
        # runs, maybe in here.
        self._lock = threading.RLock()
        self.requests = self.retries = 0
        self.bytes_sent = self.bytes_received = 0
        self.calls: set[int] = set()
        """The ids of what is under way. To add or discard one is atomic, and takes no lock."""

    def retry(self) -> None:
        with self._lock:
            self.retries += 1

    def request(self, bytes_sent: int, bytes_received: int = 0) -> None:
        """A request was made, and so much of its answer is received by now."""
        with self._lock:
            self.requests += 1
            self.bytes_sent += bytes_sent
            self.bytes_received += bytes_received

    def receive(self, count: int) -> None:
        with self._lock:
            self.bytes_received += count
