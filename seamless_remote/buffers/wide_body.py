"""A large body from far away: its bytes in order, from several connections at once.

A connection carries about one window a round trip. Through ssh that is 2 MB: 25 MB/s over a path of
80 ms that could carry far more. So the rest of such a body is asked for in stripes, every fourth
one on the same connection (`Range` with many ranges, RFC 9110, 14.2 and 14.6). They are read in
turn, in constant memory: what the others bring meanwhile waits in the buffers of the system.

Each request costs the server a hash of the whole file, so there are few, and none where one
connection is fast.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import zip_longest
from typing import Protocol

from ..errors import ProtocolError, ServiceError
from ..transport.messages import Response

logger = logging.getLogger(__name__)

WORTH_BYTES = 32 * 1024 * 1024
"""Only a body of which so much is still to come is asked for in stripes."""

MEASURED_BYTES = 8 * 1024 * 1024
"""How much the first connection brings before its pace is looked at."""

FAST = 60e6
"""Bytes a second: a connection with this pace is left alone."""

LEAD_BYTES = 8 * 1024 * 1024
"""How much the first connection still brings while the others are asked."""

STRIPE_BYTES = 2 * 1024 * 1024

WIDTH = 4
"""How many connections there are then."""

MOST_RANGES = 50
"""Ranges in one request: servers take a hundred or so."""

Ranges = Sequence[tuple[int, int]]
"""First and last byte of each."""

OpenRanges = Callable[[Ranges], Awaitable[Response]]
"""Sends a request for ranges, and returns the answer, perhaps before its head has come."""

_PIECE = 256
_MOST_BETWEEN = 4096
"""Bytes between two ranges."""

_RANGE = re.compile(rb"^content-range: *bytes ([0-9]+)-([0-9]+)/", re.IGNORECASE | re.MULTILINE)


class Source(Protocol):
    """Where bytes come from."""

    async def fill(self, room: memoryview, /) -> int:
        """Put the next bytes in `room`, and return how many; 0 at the end."""
        ...


class WideBody:
    """The body of `response`, which brings the plain bytes of a buffer from `start` to `end`.

    `fill` gives them in order. `close` it in the end, whatever happens; that leaves `response`
    alone.
    """

    def __init__(self, response: Response, start: int, end: int, open_ranges: OpenRanges) -> None:
        self.is_wide = False
        """Whether bytes have been asked for in stripes."""
        self._response = response
        self._at = start
        self._end = end
        self._open_ranges = open_ranges
        self._began = time.monotonic()
        self._asked: list[_Stripes] = []
        self._plan: deque[tuple[Source, int]] = deque([(response, MEASURED_BYTES)])
        """What is read next: where from, and how many bytes."""
        self._next_step = self._decide

    async def fill(self, room: memoryview) -> int:
        """Put the next bytes in `room`, and return how many; fewer than it holds are the last.

        ServiceError: they broke off, or the server answers something else than was asked for.
        """
        filled = 0
        while filled < len(room) and self._at < self._end:
            if not self._plan:
                await self._next_step()
            source, wanted = self._plan.popleft()
            count = await source.fill(room[filled : filled + wanted])
            if count < wanted:
                self._plan.appendleft((source, wanted - count))
            if not count:
                break
            filled += count
            self._at += count
        return filled

    def close(self) -> None:
        """Give up what has not been read of the stripes."""
        for stripes in self._asked:
            stripes.response.abandon()
        self._asked.clear()

    async def _decide(self) -> None:
        """Ask for the rest in stripes, if one connection is slow and that is worth it."""
        seconds = time.monotonic() - self._began
        start = self._at + LEAD_BYTES
        if self._end - start < WORTH_BYTES or FAST * seconds < MEASURED_BYTES:
            self._go_on_alone()
            return
        try:
            await self._ask(start)
        except ServiceError:
            self._go_on_alone()
        else:
            self._plan.append((self._response, LEAD_BYTES))
            self._next_step = self._switch

    async def _switch(self) -> None:
        """Go over to the stripes if they have come. If not, the first answer brings everything."""
        try:
            ready = [await stripes.arrive() for stripes in self._asked]
        except ServiceError:
            ready = [False]
        if not all(ready):
            self._go_on_alone()
            return
        self._response.abandon()
        self._plan_stripes()
        self._next_step = self._ask_for_more

    async def _ask_for_more(self) -> None:
        """Ask for the next stripes of a very large body."""
        await self._finish()
        await self._ask(self._at)
        if not all([await stripes.arrive() for stripes in self._asked]):
            raise ProtocolError("the server has answered one request for ranges, and not the next")
        self._plan_stripes()

    def _go_on_alone(self) -> None:
        self.close()
        self._plan.append((self._response, self._end - self._at))

    async def _ask(self, start: int) -> None:
        """Send the requests for the stripes from `start` on, as many as they may name."""
        self.is_wide = True
        stop = min(self._end, start + WIDTH * MOST_RANGES * STRIPE_BYTES)
        ranges = [(at, min(at + STRIPE_BYTES, stop) - 1) for at in range(start, stop, STRIPE_BYTES)]
        for turn in range(min(WIDTH, len(ranges))):
            mine = ranges[turn::WIDTH]
            self._asked.append(_Stripes(await self._open_ranges(mine), mine))

    def _plan_stripes(self) -> None:
        turns = (iter(stripes.ranges) for stripes in self._asked)
        for row in zip_longest(*turns):
            for stripes, stripe in zip(self._asked, row, strict=True):
                if stripe is not None:
                    self._plan.append((stripes, stripe[1] + 1 - stripe[0]))

    async def _finish(self) -> None:
        """Read the answers with stripes to their ends, so that their connections serve again."""
        try:
            for stripes in self._asked:
                await stripes.finish()
        except ServiceError as exc:
            logger.debug("an answer with several ranges broke off after the last one: %s", exc)
        self.close()


class _Stripes:
    """The answer to a request for ranges, read in order.

    One with several is `multipart/byteranges`; a single range comes as it is (RFC 9110, 15.3.7).
    """

    def __init__(self, response: Response, ranges: Ranges) -> None:
        self.response = response
        self.ranges = ranges
        self._to_come = deque(ranges)
        self._left = 0
        """Bytes of the range that was begun."""
        self._over = b""
        """What has come beyond the head of a range."""

    async def arrive(self) -> bool:
        """Wait for the head of the answer; whether it brings the ranges."""
        if self.response.is_pending:
            await self.response.arrive()
        headers = self.response.headers
        if self.response.status != 206 or self.response.encoding is not None:
            return False
        if len(self.ranges) > 1:
            return (headers.get("Content-Type") or "").startswith("multipart/byteranges")
        ((first, last),) = self.ranges
        self._to_come.clear()
        self._left = last + 1 - first
        return (headers.get("Content-Range") or "").startswith(f"bytes {first}-{last}/")

    async def fill(self, room: memoryview) -> int:
        """Put bytes of one range in `room`; ProtocolError if another one comes than was asked."""
        if not self._left:
            await self._begin_range()
        room = room[: self._left]
        count = min(len(self._over), len(room))
        room[:count] = self._over[:count]
        self._over = self._over[count:]
        if count < len(room):
            count += await self.response.fill(room[count:])
        self._left -= count
        return count

    async def finish(self) -> None:
        """Read what is left: the end of the last range's part."""
        await self.response.fill(memoryview(bytearray(_MOST_BETWEEN)))

    async def _begin_range(self) -> None:
        room = memoryview(bytearray(_PIECE))
        while b"\r\n\r\n" not in self._over:
            count = await self.response.fill(room)
            self._over += room[:count]
            if not count or len(self._over) > _MOST_BETWEEN:
                raise ProtocolError("a range without a head in an answer with several ranges")
        head, _, self._over = self._over.partition(b"\r\n\r\n")
        found = _RANGE.search(head)
        first, last = self._to_come.popleft()
        if found is None or (int(found[1]), int(found[2])) != (first, last):
            raise ProtocolError(f"another range came than {first} to {last}, which is next")
        self._left = last + 1 - first
