"""Requests and responses: what is asked of an HTTP origin, and what comes back.

Nothing here touches a socket: where an answer comes from is behind `AnswerSource`.
"""

from __future__ import annotations

import enum
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from ..errors import ExchangeError, ProtocolError

_READ = 262144
_BODY_METHODS = frozenset(("POST", "PUT", "PATCH"))


class OverlongAnswerError(ProtocolError):
    """The body of an answer is longer than whoever reads it takes."""


class Stage(enum.Enum):
    """How far a request has come; the values are what it waits for."""

    NEW = ""
    QUEUED = "a free connection"
    CONNECTING = "a new connection"
    SENDING = "the server to take the request"
    AWAITING = "the answer"
    BODY = "the rest of the answer"


@dataclass(slots=True)
class Request:
    """One request to an origin.

    `target` is the path (and query), percent-encoded. `Host` and `Content-Length` are added, and
    nothing else. A `safe` request may be sent a second time if a reused connection broke before
    the answer. With `expect_continue`, the server is asked whether it wants the body (RFC 9110,
    10.1.1).

    `before_sending`, if given, is called after the request has waited for a connection; what it
    raises is raised instead of sending. `abort` ends the connection under a request that is on its
    way, from any thread, even while its loop stands still.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | memoryview | None = None
    expect_continue: bool = False
    safe: bool = False
    before_sending: Callable[[], None] | None = field(default=None, compare=False)
    abort: Callable[[], None] | None = field(default=None, init=False, compare=False)
    stage: Stage = field(default=Stage.NEW, init=False, compare=False)

    def __str__(self) -> str:
        return f"{self.stage.value} ({self.method} {self.target})"

    @property
    def is_last(self) -> bool:
        """Whether it asks the server to close the connection after the answer."""
        return ("Connection", "close") in self.headers

    @property
    def body_length(self) -> int:
        """The size of the body in bytes."""
        body = self.body
        if body is None:
            return 0
        return body.nbytes if isinstance(body, memoryview) else len(body)

    def head(self, authority: str) -> bytes:
        """The request line and the headers as sent; ValueError if they would be malformed."""
        head = f"{self.method} {self.target} HTTP/1.1\r\nHost: {authority}\r\n"
        breaks = 3
        for name, value in self.headers:
            head += f"{name}: {value}\r\n"
            breaks += 1
        if self.body is not None or self.method in _BODY_METHODS:
            head += f"Content-Length: {self.body_length}\r\n"
            breaks += 1
            if self.expect_continue:
                head += "Expect: 100-continue\r\n"
                breaks += 1
        head += "\r\n"
        # One line break, or blank, more than ours would smuggle in a request of somebody else's.
        if head.count("\n") != breaks or head.count("\r") != breaks or " " in self.target:
            raise ValueError(f"a request cannot hold such characters: {self.target!r}")
        return head.encode("ascii")


class Headers:
    """The headers of an answer, in order, with names that match in any case."""

    __slots__ = ("raw",)

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self.raw = raw

    def get(self, name: str, default: str | None = None) -> str | None:
        """The value of the first header `name`, or `default`."""
        wanted = name.encode("latin-1").lower()
        for key, value in self.raw:
            if key.lower() == wanted:
                return value.decode("latin-1")
        return default

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for key, value in self.raw:
            yield key.decode("latin-1"), value.decode("latin-1")

    def __len__(self) -> int:
        return len(self.raw)

    def __repr__(self) -> str:
        return f"Headers({list(self)!r})"


class AnswerSource(Protocol):
    """Where the rest of an answer comes from: a connection. After the last byte, or an error, it
    ends."""

    async def receive_head(self, response: Response, patience: float | None) -> None:
        """Wait for the head of the answer, `patience` seconds at most, and fill it in."""
        ...

    async def receive(self, room: memoryview) -> tuple[int, bool]:
        """Put the next bytes of the body in `room`, which is not empty.

        Returns how many, and whether they are the last.
        """
        ...

    def abandon(self) -> None:
        """Give up the rest of the answer. Does not block."""
        ...


_NO_HEADERS = Headers([])


class Response:
    """An answer whose head has come; its body comes when asked for, once.

    Use it as `async with`, or call `abandon()`: an unread body holds a connection. Reading to the
    end gives the connection back by itself. A read that fails or is cancelled closes it.
    """

    __slots__ = ("_piece", "_source", "content_length", "headers", "status")

    def __init__(self, source: AnswerSource) -> None:
        self.status = 0
        self.headers = _NO_HEADERS
        self.content_length: int | None = None
        self._piece = b""
        self._source: AnswerSource | None = source

    def fill_in(
        self,
        status: int,
        headers: Headers,
        content_length: int | None,
        piece: bytes,
        source: AnswerSource | None,
    ) -> None:
        """Take the head, the first bytes of the body, and where the rest comes from, if any."""
        self.status = status
        self.headers = headers
        self.content_length = content_length
        self._piece = piece
        self._source = source

    def __repr__(self) -> str:
        return f"<Response {self.status or 'pending'}>"

    @property
    def is_pending(self) -> bool:
        """Whether the head has not come yet (see `patience` of `Transport.send`)."""
        return not self.status

    @property
    def encoding(self) -> str | None:
        """The content coding of its body; None for the plain bytes."""
        value = self.headers.get("Content-Encoding")
        return None if value is None or value.strip().lower() in ("", "identity") else value

    @property
    def has_all(self) -> bool:
        """Whether all of it has come, so that it needs no connection any more."""
        return self._source is None

    async def arrive(self, patience: float | None = None) -> None:
        """Wait for the head of a pending answer. Errors as for `Transport.send`.

        With `patience`, it is still pending if its head has not come in so many seconds.
        """
        source, self._source = self._source, _BROKEN
        assert source is not None
        await source.receive_head(self, patience)
        if self.is_pending:
            self._source = source

    async def read(self, limit: int) -> bytes:
        """The whole body, as sent (not decoded).

        More than `limit` bytes is an OverlongAnswerError; a broken connection an ExchangeError;
        silence for longer than the request's read timeout a ServiceTimeout.
        """
        announced = self.content_length or 0
        if self._source is None:
            body, self._piece = self._piece, b""
            if len(body) > limit:
                raise self._too_long(limit)
            return body
        if announced > limit:
            self.abandon()
            raise self._too_long(limit)
        # BytesIO grows by moving pages and gives its bytes away uncopied: a large body is never
        # copied in one go, which would stop the loop.
        body_file = io.BytesIO()
        room = memoryview(bytearray(_READ))
        while count := await self.fill(room):
            body_file.write(room[:count])
            if body_file.tell() > limit:
                self.abandon()
                raise self._too_long(limit)
        return body_file.getvalue()

    async def fill(self, room: memoryview) -> int:
        """Put the next bytes of the body in `room`, as sent (not decoded); returns how many.

        If they do not fill it, they are the last. Errors as for `read`; bytes that came before one
        are lost.
        """
        count = min(len(self._piece), len(room))
        room[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        while count < len(room) and self._source is not None:
            source, self._source = self._source, _BROKEN
            more, last = await source.receive(room[count:])
            self._source = None if last else source
            count += more
        return count

    def abandon(self) -> None:
        """Give up what has not been read, and the connection with it. No-op at the end."""
        source, self._source, self._piece = self._source, None, b""
        if source is not None:
            source.abandon()

    async def __aenter__(self) -> Response:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.abandon()

    @staticmethod
    def _too_long(limit: int) -> OverlongAnswerError:
        return OverlongAnswerError(f"the answer's body is longer than {limit} bytes")


class _BrokenSource:
    """Stands in for a source while it is being read, and after a read that did not return."""

    async def receive_head(self, response: Response, patience: float | None) -> None:
        raise self._broken()

    async def receive(self, room: memoryview) -> tuple[int, bool]:
        raise self._broken()

    def abandon(self) -> None:
        """Nothing to do: a failed read has closed its source."""

    @staticmethod
    def _broken() -> ExchangeError:
        return ExchangeError("an earlier read of this answer failed, was cancelled or is under way")


_BROKEN = _BrokenSource()
