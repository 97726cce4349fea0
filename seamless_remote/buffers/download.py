"""Downloads of a buffer from a hashserver: verified, resumed, in constant memory.

The client decides which server to ask and when to try again.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable

from ..errors import ServiceError, WrongBytesError
from ..transport.messages import Request, Response
from . import wide_body
from .ingest import (
    UNKNOWN_LENGTH_LIMIT,
    BufferWriter,
    NullTarget,
    Target,
    TooLongError,
    ingest,
)
from .wide_body import OpenRanges, WideBody
from .worker_threads import offload

ASK_LENGTH_BYTES = UNKNOWN_LENGTH_LIMIT // 8
"""For bodies this large, or of unknown size, ask for the decompressed length first.

A smaller body that decompresses to more than `UNKNOWN_LENGTH_LIMIT` is cheap to request again.
"""

_WHOLE = (200, 203)

AskLength = Callable[[], Awaitable["int | None"]]
"""Asks the server for the length of the uncompressed buffer in bytes; None: it has none."""


class Outcome(enum.Enum):
    """What has become of an answer."""

    RIGHT = enum.auto()
    """The buffer is in the target, and has its checksum."""

    WRONG = enum.auto()
    """The server sends something else under this checksum (see `Download.fault`)."""

    ANEW = enum.auto()
    """Request the buffer again, from its first byte."""


class Download:
    """A buffer on its way to `target`, in one or more answers.

    If an answer breaks off, its bytes stay in the target and the next request asks for the rest
    only (`Range`, RFC 9110, 14). That needs a plain body of announced length, of which at least one
    block has been written. A hashserver hashes the whole file before either answer, so the rest
    never costs more than the whole.

    `restart` empties the target. It is called in a worker thread, whenever the buffer starts over.
    """

    def __init__(self, checksum: str, target: Target, restart: Callable[[], None]) -> None:
        self.received = 0
        """Bytes that came so far, in all answers."""
        self.fault = ""
        """What was wrong, after `Outcome.WRONG`."""
        self.checksum = checksum
        self._target = target
        self._restart = restart
        self._dirty = False
        self._writer: BufferWriter | None = None
        self._announced: int | None = None
        self._stated: int | None = None
        self._resumed = False
        self._is_narrow = False

    def request(self, path: str) -> Request:
        """The request for the buffer at `path`, or for what is missing of it."""
        if self._writer is None:
            return Request("GET", path, safe=True)
        wanted = ("Range", f"bytes={self._writer.length}-")
        return Request("GET", path, headers=(wanted,), safe=True)

    def is_answered_by(self, response: Response) -> bool:
        """Whether `take` can use this answer: 200, or for a request of a part 206 or 416.

        203 is a 200 that a proxy has touched (RFC 9110, 15.3.4); the checksum tells whether it has.
        """
        parts = () if self._writer is None else (206, 416)
        return response.status in (*_WHOLE, *parts)

    def widened(self, response: Response, open_ranges: OpenRanges) -> WideBody | None:
        """The body of an answer, from several connections at once; None if it is not large, plain
        bytes of known length, or if that has failed before."""
        start = self.position if response.status == 206 else 0
        size = response.content_length
        plain = response.encoding is None
        if not plain or size is None or size < wide_body.WORTH_BYTES or self._is_narrow:
            return None
        return WideBody(response, start, start + size, open_ranges)

    async def take(
        self, response: Response, ask_length: AskLength, wide: WideBody | None = None
    ) -> Outcome:
        """Write an answer to the target, and verify the buffer. `wide` is its body, if it has one.

        `ask_length` is awaited if the body may decompress to more than `UNKNOWN_LENGTH_LIMIT`.
        ServiceError: the answer broke off; the next request continues from there. After a
        cancellation the next request does, too. Errors of the target pass through.
        """
        if response.status in _WHOLE:
            await self.begin_anew()
            writer = await self._begin(response, ask_length)
        elif self._writer is not None and self._continues(response):
            writer = self._writer
            self._resumed = True
        else:
            await self.begin_anew()
            return Outcome.ANEW
        before = writer.length
        self._dirty = True
        try:
            fill = response.fill if wide is None else wide.fill
            actual = await ingest(writer, fill, response.content_length)
        except TooLongError as exc:
            if self._stated is None and not self._resumed:
                self._stated = await ask_length() or 0
                return Outcome.ANEW
            return await self._wrong(str(exc))
        except WrongBytesError as exc:
            return await self._wrong(str(exc))
        except ServiceError:
            self._narrow(wide)
            if not self._can_resume(writer):
                await self.begin_anew()
            raise
        except BaseException:
            # Cancelled: whoever runs it on goes on from here.
            self._can_resume(writer)
            raise
        finally:
            self.received += writer.length - before
        if actual == self.checksum:
            return Outcome.RIGHT
        self._narrow(wide)
        return await self._wrong(f"their checksum is {actual}")

    def _narrow(self, wide: WideBody | None) -> None:
        """Something went wrong: if it may be for several connections, do without them, and do not
        blame the server yet."""
        if wide is not None and wide.is_wide:
            self._is_narrow = self._resumed = True

    def _can_resume(self, writer: BufferWriter) -> bool:
        """Whether the next request can ask for the rest; it will then."""
        resumable = bool(not writer.compressed and self._announced is not None and writer.length)
        self._writer = writer if resumable else None
        return resumable

    @property
    def position(self) -> int:
        """How many bytes of the buffer need not be asked for again."""
        return 0 if self._writer is None else self._writer.length

    async def begin_anew(self) -> None:
        """Start over: drop what has come."""
        self._writer = self._announced = None
        self._resumed = False
        if self._dirty:
            await offload(self._restart)
            self._dirty = False

    async def _begin(self, response: Response, ask_length: AskLength) -> BufferWriter:
        encoding = response.encoding
        size = response.content_length
        if encoding is None and size is not None:
            self._announced = size
            return BufferWriter(self._target, None, size)
        # Few bytes may inflate without end, and a body without a length may never end.
        if self._stated is None and (size is None or size >= ASK_LENGTH_BYTES):
            self._stated = await ask_length() or 0
        return BufferWriter(
            self._target, encoding, UNKNOWN_LENGTH_LIMIT if self._stated is None else self._stated
        )

    def _continues(self, response: Response) -> bool:
        """Whether this answer is the part that was requested: the whole rest, in plain bytes."""
        assert self._writer is not None
        assert self._announced is not None
        return (
            response.status == 206
            and response.encoding is None
            and response.headers.get("Content-Range")
            == f"bytes {self._writer.length}-{self._announced - 1}/{self._announced}"
        )

    async def _wrong(self, fault: str) -> Outcome:
        """Wrong bytes. If a resumed download mismatches, retry from scratch before blaming the
        server."""
        resumed = self._resumed
        self.fault = fault
        await self.begin_anew()
        return Outcome.ANEW if resumed else Outcome.WRONG


async def measure(response: Response) -> int:
    """The length in bytes of the uncompressed buffer that an answer brings."""
    encoding = response.encoding
    if encoding is None and response.content_length is not None:
        return response.content_length
    writer = BufferWriter(NullTarget(), encoding)
    await ingest(writer, response.fill, response.content_length)
    return writer.length
