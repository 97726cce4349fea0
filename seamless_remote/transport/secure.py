"""`https://` through httpx, in the shapes of this package.

httpx is imported with this module, which is imported when an https origin is first used.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial

import anyio
import certifi
import httpx

from seamless_remote.errors import ConnectError, ExchangeError, ProtocolError, ServiceTimeout

from .messages import Headers, Origin, Request, Response, StreamBody

_SEND = 262144


def is_local(host: str) -> bool:
    """Whether `host` is here or in the cluster: such hosts are never reached through a proxy.

    True for loopback, private and link-local addresses and for names without a dot.
    """
    try:
        address = ipaddress.ip_address(host.split("%", 1)[0])
    except ValueError:
        name = host.rstrip(".").lower()
        return "." not in name or name.endswith(".localhost")
    return address.is_loopback or address.is_private or address.is_link_local


class SecureClient:
    """https connections to one origin, at most `bound` at once (None: no bound).

    Follows no redirects, decodes no bodies, and uses proxies from the environment only for hosts
    outside (see `is_local`). Certificates are checked against the system's and certifi's.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        bound: int | None,
        connect_timeout: float | None,
        idle_lifetime: float,
    ) -> None:
        self.origin = origin
        self._connect_timeout = connect_timeout
        self._requests = 0
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
        self._client = httpx.AsyncClient(
            verify=context,
            trust_env=not is_local(origin.host),
            limits=httpx.Limits(
                max_connections=bound,
                max_keepalive_connections=bound,
                keepalive_expiry=idle_lifetime,
            ),
        )

    @property
    def is_unused(self) -> bool:
        """Whether no request is under way."""
        return not self._requests

    async def send(self, request: Request, read_timeout: float | None) -> Response:
        """Send `request`; errors, timeouts and the answer as for `Pool.send`."""
        what = f"{request.method} {self.origin}{request.target}"
        headers = [("Host", self.origin.authority), *request.headers]
        if request.body is not None:
            headers.append(("Content-Length", str(request.body_length)))
        timeouts = {
            "connect": self._connect_timeout,
            "read": read_timeout,
            "write": read_timeout,
            "pool": None,
        }
        extensions: dict[str, object] = {"timeout": timeouts}
        if request.before_turn is not None:
            extensions["trace"] = partial(_before_sending, request.before_turn)
        upload = None if request.body is None else _Upload(request.body)
        outgoing = httpx.Request(
            request.method,
            f"{self.origin}{request.target}",
            headers=headers,
            content=upload,
            extensions=extensions,
        )
        self._requests += 1
        try:
            with _mapped_errors(what):
                answer = await self._client.send(outgoing, stream=True, follow_redirects=False)
        except BaseException:
            self._requests -= 1
            raise
        finally:
            if upload is not None:
                await upload.aclose()
        length = answer.headers.get("content-length", "")
        announced = int(length) if length.isascii() and length.isdigit() else None
        return Response(
            answer.status_code,
            Headers(list(answer.headers.raw)),
            announced,
            b"",
            _SecureBody(answer, what, announced, self._end),
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    def _end(self) -> None:
        self._requests -= 1


class _SecureBody:
    """A `BodySource` over an httpx response."""

    def __init__(
        self,
        answer: httpx.Response,
        what: str,
        announced: int | None,
        on_end: Callable[[], None],
    ) -> None:
        self._answer = answer
        self._what = what
        self._left = announced
        self._on_end = on_end
        self._pieces = answer.aiter_raw()
        self._piece = b""

    async def receive(self, room: memoryview) -> tuple[int, bool]:
        try:
            with _mapped_errors(self._what):
                if not self._piece:
                    self._piece = await self._next_piece()
                count = min(len(self._piece), len(room))
                room[:count] = self._piece[:count]
                self._piece = self._piece[count:]
                if self._left is not None:
                    self._left -= count
                    if self._left <= 0:
                        # httpx keeps the connection where it has seen the end itself.
                        await self._next_piece()
        except BaseException:
            await self.aclose()
            raise
        last = not count or self._left == 0
        if last:
            await self.aclose()
        return count, last

    async def _next_piece(self) -> bytes:
        """The next bytes, b"" at the end."""
        async for piece in self._pieces:
            if piece:
                return piece
        return b""

    async def aclose(self) -> None:
        self._on_end()
        # httpx leaves the connection open when it is cancelled in here.
        with anyio.CancelScope(shield=True), _mapped_errors(self._what):
            await self._answer.aclose()


class _Upload:
    """A request body as httpx wants it, checked against its length. No generator: see `aclose`."""

    def __init__(self, body: bytes | memoryview | StreamBody) -> None:
        stream = body if isinstance(body, StreamBody) else _in_pieces(memoryview(body).cast("B"))
        self._length = self._left = stream.length
        self._chunks = stream.chunks()

    def __aiter__(self) -> _Upload:
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._chunks, None)
        if chunk is not None:
            self._left -= len(chunk)
        if self._left < 0 or (chunk is None and self._left):
            raise ValueError(f"a request body of {self._length} bytes was announced, not what came")
        if chunk is None:
            raise StopAsyncIteration
        return bytes(chunk)

    async def aclose(self) -> None:
        """Close the chunks, which httpx does not do when it stops before their end."""
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            with anyio.CancelScope(shield=True):
                await close()


def _in_pieces(view: memoryview) -> StreamBody:
    async def pieces() -> AsyncIterator[bytes | memoryview]:
        for start in range(0, view.nbytes, _SEND):
            yield view[start : start + _SEND]

    return StreamBody(view.nbytes, pieces)


async def _before_sending(act: Callable[[], None], event: str, _: object) -> None:
    """Act when a request is about to be sent (as httpcore's `trace` extension tells)."""
    if event == "http11.send_request_headers.started":
        act()


@contextmanager
def _mapped_errors(what: str) -> Iterator[None]:
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as exc:
        raise ConnectError(f"{what}: cannot connect: {exc or type(exc).__name__}") from exc
    except (httpx.ReadTimeout, httpx.WriteTimeout) as exc:
        raise ServiceTimeout(f"{what}: the server was silent for too long") from exc
    except httpx.ProtocolError as exc:
        raise ProtocolError(f"{what}: {exc}") from exc
    except httpx.TransportError as exc:
        raise ExchangeError(f"{what}: broke off: {exc or type(exc).__name__}") from exc
