"""Requests and responses: what is asked of an HTTP origin, and what comes back.

Nothing here touches a socket: where a body comes from is behind `BodySource`.
"""

from __future__ import annotations

import io
import ipaddress
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from seamless_remote.errors import ExchangeError, ProtocolError

_DEFAULT_PORTS = {"http": 80, "https": 443}
_READ = 262144
_BODY_METHODS = frozenset(("POST", "PUT", "PATCH"))


class Origin(NamedTuple):
    """Where a server listens: `scheme` is http or https, `host` has no brackets around IPv6."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """`host:port` as a URL has it, without the scheme's own port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS.get(self.scheme) else f"{host}:{self.port}"


def parse_url(url: str) -> tuple[Origin, str]:
    """Split a service's URL in its origin and its base path ("" or "/path", no slash at the end).

    Raises ValueError, saying what is wrong, for anything but http(s)://host[:port][/path], and
    TypeError for what is no text.
    """
    if not isinstance(url, str):
        raise TypeError(f"{url!r} is no service URL: it is no text")
    if any(char <= " " or char == "\x7f" for char in url):
        raise ValueError(f"{url!r} is no service URL: it has blanks or control characters in it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise ValueError(f"{url!r} is no service URL: {exc}") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError(f"{url!r} is no service URL: it must start with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("a service URL cannot hold a user name or a password")
    if not parts.hostname:
        raise ValueError(f"{url!r} is no service URL: it names no host")
    if "[" in parts.netloc:
        _require_ipv6(parts.hostname, url)
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError(f"{url!r} is no service URL: its port is not one of 1 to 65535")
    if "?" in url or "#" in url:
        raise ValueError(f"{url!r} is no service URL: it has a query or a fragment")
    if not (url.isascii()):
        raise ValueError(f"{url!r} is no service URL: it is not plain ASCII")
    host = parts.hostname
    return Origin(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme]), parts.path.rstrip("/")


def _require_ipv6(host: str, url: str) -> None:
    # Python looks at this by itself from 3.11 on.
    try:
        ipaddress.IPv6Address(host)
    except ValueError as exc:
        raise ValueError(f"{url!r} is no service URL: {exc}") from None


@dataclass(frozen=True, slots=True)
class StreamBody:
    """A request body that is made while it is sent.

    `length` is its size in bytes; `chunks` gives a new iterator over it at each call, so that the
    request can be sent again. Giving more or fewer bytes than `length` is a ValueError in `send`.
    """

    length: int
    chunks: Callable[[], AsyncIterator[bytes | memoryview]]


@dataclass(slots=True)
class Request:
    """One request to an origin.

    `target` is the path (and query), percent-encoded. `Host` and `Content-Length` are added, and
    nothing else. `safe` says that the request may be sent a second time when a reused connection
    broke before the answer; `expect_continue` asks the server for a go before the body is sent.
    `abort`, while it is under way on an http connection, ends that connection from any thread, even
    while its loop stands still. `before_turn`, if given, is called when the request has waited for
    a connection and its turn has come (https: before each is sent): what it raises is raised
    instead of sending it.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | memoryview | StreamBody | None = None
    expect_continue: bool = False
    safe: bool = False
    before_turn: Callable[[], None] | None = field(default=None, compare=False)
    abort: Callable[[], None] | None = field(default=None, init=False, compare=False)

    @property
    def body_length(self) -> int:
        """The size of the body in bytes."""
        body = self.body
        if body is None:
            return 0
        if isinstance(body, bytes):
            return len(body)
        return body.nbytes if isinstance(body, memoryview) else body.length

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
        # One more line break, or blank, than is ours would smuggle in a request of somebody else's.
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
        wanted = name.lower().encode("latin-1")
        for key, value in self.raw:
            if key.lower() == wanted:
                return value.decode("latin-1")
        return default

    def get_all(self, name: str) -> list[str]:
        """The values of every header `name`, in order."""
        wanted = name.lower().encode("latin-1")
        return [value.decode("latin-1") for key, value in self.raw if key.lower() == wanted]

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


class BodySource(Protocol):
    """Where the rest of a response's body comes from: a connection."""

    async def receive(self, room: memoryview) -> tuple[int, bool]:
        """Put the next bytes in `room`, which is not empty; how many, and whether they are the
        last.

        After the last, or an error, the source ends.
        """
        ...

    async def aclose(self) -> None:
        """Give up the rest of the body."""
        ...


class Response:
    """An answer, of which the head has come; the body comes when it is asked for, once.

    Use it as `async with`, or call `aclose()`: an unread body holds a connection. Reading to the
    end gives the connection back by itself. A read that fails or is cancelled closes it.
    """

    __slots__ = ("_piece", "_source", "content_length", "headers", "status")

    def __init__(
        self,
        status: int,
        headers: Headers,
        content_length: int | None,
        piece: bytes,
        source: BodySource | None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.content_length = content_length
        self._piece = piece
        self._source = source

    def __repr__(self) -> str:
        return f"<Response {self.status}>"

    async def read(self, limit: int) -> bytes:
        """The whole body, as sent (not decoded).

        More than `limit` bytes is a ProtocolError; a broken connection an ExchangeError; silence
        for longer than the request's read timeout a ServiceTimeout.
        """
        announced = self.content_length or 0
        if self._source is None:
            body, self._piece = self._piece, b""
            if len(body) > limit:
                raise self._too_long(limit)
            return body
        if announced > limit:
            await self.aclose()
            raise self._too_long(limit)
        # BytesIO grows by moving pages and gives its bytes away uncopied: a large body is never
        # copied in one go, which would stop the loop.
        body_file = io.BytesIO()
        room = memoryview(bytearray(_READ))
        while count := await self.fill(room):
            body_file.write(room[:count])
            if body_file.tell() > limit:
                await self.aclose()
                raise self._too_long(limit)
        return body_file.getvalue()

    async def fill(self, room: memoryview) -> int:
        """Put the next bytes of the body in `room`, as sent (not decoded); how many.

        Fewer than it holds: they are the last. Errors as for `read`; bytes that came before one are
        lost.
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

    async def aclose(self) -> None:
        """Give up what has not been read, and the connection with it. No-op at the end."""
        source, self._source, self._piece = self._source, None, b""
        if source is not None:
            await source.aclose()

    async def __aenter__(self) -> Response:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._source is not None:
            await self.aclose()

    @staticmethod
    def _too_long(limit: int) -> ProtocolError:
        return ProtocolError(f"the answer's body is longer than {limit} bytes")


class _BrokenSource:
    """Stands in for a source while it is being read, and after a read that did not return."""

    async def receive(self, room: memoryview) -> tuple[int, bool]:
        raise ExchangeError("an earlier read of this body failed, was cancelled or is under way")

    async def aclose(self) -> None:
        """Nothing to do: a failed read has closed its source."""


_BROKEN = _BrokenSource()
