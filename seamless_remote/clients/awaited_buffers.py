"""Reads that wait for promised buffers, without a connection each.

All that wait in one loop ask together: one of them drives a round (it sleeps, then asks about all),
and the others wait for its outcome. See `nursery.shared_work`.
"""

from __future__ import annotations

import enum
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio

from ..nursery.calling import share
from ..nursery.calls import Call
from .endpoint import Endpoint

SHORTEST_PAUSE = 0.1
LONGEST_PAUSE = 1.0
"""Seconds between two rounds: a tenth of the time for which the latest read has waited."""


class Presence(enum.Enum):
    """Where a server stands with a buffer."""

    STORED = enum.auto()
    """It has it, or an upload of it is under way."""
    PROMISED = enum.auto()
    ABSENT = enum.auto()
    """It does not know it, maybe because its promise has expired."""


Ask = Callable[[Call, Endpoint, Sequence[str]], Awaitable[list[Presence]]]


class AwaitedBuffers:
    """The promised buffers of one server for which reads wait."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        # Of each loop: since when each read waits, and for what.
        self._reads: weakref.WeakKeyDictionary[Any, dict[object, tuple[float, str]]] = (
            weakref.WeakKeyDictionary()
        )

    async def until_settled(self, call: Call, endpoint: Endpoint, checksum: str) -> None:
        """Wait until a buffer is promised no longer: it is stored, or will not come.

        ServiceError: the server could not be asked.
        """
        reads = self._reads.setdefault(call.loop, {})
        waits_for = f"the upload of {checksum}, which is promised"
        read = object()
        reads[read] = (time.monotonic(), checksum)
        try:
            while True:
                call.waits_for = waits_for
                key = (self, endpoint.url)
                found = await share(call, key, lambda: self._round(endpoint), waits_for)
                # A read that came after the question was sent waits for the next round.
                if found.get(checksum, Presence.PROMISED) is not Presence.PROMISED:
                    return
        finally:
            del reads[read]

    def _round(self, endpoint: Endpoint) -> Callable[[Call], Awaitable[dict[str, Presence]]]:
        async def run(call: Call) -> dict[str, Presence]:
            reads = self._reads[call.loop]
            waited = time.monotonic() - max(since for since, _ in reads.values())
            await anyio.sleep(min(LONGEST_PAUSE, max(SHORTEST_PAUSE, waited / 10)))
            wanted = list(dict.fromkeys(checksum for _, checksum in reads.values()))
            return dict(zip(wanted, await self._ask(call, endpoint, wanted), strict=True))

        return run
