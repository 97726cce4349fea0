"""One HTTP/1.1 connection: one exchange after another, each in a task of whatever loop."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NoReturn

from anyio.lowlevel import checkpoint

from ..errors import ConnectError, ExchangeError, ProtocolError, ServiceError, ServiceTimeout
from ..nursery.bound import Share
from .messages import Headers, Request, Response, Stage
from .own_limits import connect_error
from .parsing import SMALL_BODY, AnswerParser
from .poller import Received
from .readiness import Readiness, SilenceError, Step, readiness_in
from .socket_io import TLS_RECORD, BrokenConnectionError, SocketIO
from .urls import Origin

_RECEIVE = 65536
_SEND = 262144
# How much of a body that is answered early is sent all the same, if the kernel takes it at once:
# the connection can serve again then, and another one may cost a round trip or two.
_WORTH_SENDING = 524288
# RFC 9110, 10.1.1: a client does not wait for 100 without end; old servers never send it.
_CONTINUE_PATIENCE = 1.0


class State(enum.Enum):
    """Where a connection stands."""

    IDLE = enum.auto()
    """No exchange, and no loop: any task may begin one."""
    SENDING = enum.auto()
    AWAITING = enum.auto()
    """The request is sent, and the head of the answer is still to come."""
    BODY = enum.auto()
    """The head of the answer has come, and the rest of its body is still to be read."""
    CLOSED = enum.auto()


class ClosedBeforeAnswerError(ExchangeError):
    """The connection ended before the first byte of an answer, with the request (partly) sent.

    On a reused connection that mostly means that the server had closed it for being idle.
    """

    is_first = False
    """Whether this was the connection's first request."""


class Connection:
    """An HTTP/1.1 connection, which owns its socket. One task at a time uses it.

    During an exchange it is attached to the loop of the task that makes it. `on_end` is called once
    for each answer that was not complete when `exchange` returned: at its end (in state IDLE, or
    CLOSED if the connection cannot serve again) or when it was given up (CLOSED).
    """

    __slots__ = ("__weakref__", "_authority", "_io", "_on_end", "_parser", "_readiness", "_request",
                 "_reusable", "_room", "idle_since", "origin", "share", "state")  # fmt: skip

    def __init__(self, io: SocketIO, origin: Origin, on_end: Callable[[Connection], None]) -> None:
        self.origin = origin
        self._authority = origin.authority
        self.state = State.IDLE
        self.idle_since = 0.0
        self.share: Share | None = None
        """The place of the pool's bound that whoever uses it holds."""
        self._io = io
        self._on_end = on_end
        self._parser = AnswerParser()
        self._readiness: Readiness | None = None
        self._request: Request | None = None
        self._reusable = True
        self._room = memoryview(b"")

    def __repr__(self) -> str:
        request = "" if self._request is None else f", {self._request}"
        return f"<Connection to {self.origin}: {self.state.name}{request}>"

    def is_stale(self) -> bool:
        """Whether the server closed an idle connection, or spoke on it."""
        return self._io.is_stale()

    def cut(self) -> None:
        """End it under whoever uses it, from any thread: they see a broken connection."""
        self._io.shut_down()

    def close(self) -> None:
        """Close it, now. For the task that uses it, or when none does."""
        self.state = State.CLOSED
        self._parser.discard()
        self._detach()
        self._io.close()

    async def exchange(
        self,
        request: Request,
        loop: Any,
        read_timeout: float | None,
        patience: float | None = None,
    ) -> Response:
        """Send `request` and wait for the head of the answer (for all of it when it is small).

        `read_timeout` bounds the silence, in seconds. With `patience`, an answer of which no head
        has come in so many seconds is pending: `receive_head` waits on.

        Raises ConnectError if nothing could be sent, ClosedBeforeAnswerError, ProtocolError,
        ServiceTimeout, or another ExchangeError. After any error, and after cancellation, the
        connection is closed.
        """
        self._parser.expect()
        self._request = request
        request.abort = self._io.shut_down
        response = Response(self)
        try:
            self._readiness = readiness = readiness_in(loop, self._io.sock, read_timeout)
            rest = self._send_first(request)
            if rest:
                await self._send_rest(request, rest)
            self.state = State.AWAITING
            request.stage = Stage.AWAITING
            if self._io.is_tls or self._parser.begun:
                arrived = await self._wait(self._take_answer, patience)
            else:
                arrived = await readiness.until(self._take_answer, patience)
            if arrived:
                self._fill_in(response)
        except BaseException as exc:
            self._fail(exc)
        return response

    async def receive_head(self, response: Response, patience: float | None) -> None:
        """Wait for the head of an answer that is pending (see `AnswerSource`)."""
        try:
            if await self._wait(self._take_answer, patience):
                self._fill_in(response)
        except BaseException as exc:
            self._fail(exc, self._on_end)
        if response.has_all:
            self._on_end(self)

    async def receive(self, room: memoryview) -> tuple[int, bool]:
        """Fill `room`, or what of it the rest of the body takes (see `AnswerSource`)."""
        self._room = room
        try:
            await self._wait(self._take_body)
        except BaseException as exc:
            self._fail(exc, self._on_end)
        finally:
            left, self._room = len(self._room), memoryview(b"")
        complete = self._parser.complete
        if complete:
            self._finish()
            self._on_end(self)
        return len(room) - left, complete

    def abandon(self) -> None:
        """Give up the rest of the answer, and with it the connection. Does not block."""
        self.close()
        self._on_end(self)

    def _fill_in(self, response: Response) -> None:
        """Hand on what has come; the exchange is over if that is all of it."""
        parser = self._parser
        rest = None if parser.complete else self
        headers = Headers(parser.headers)
        response.fill_in(parser.status, headers, parser.length, parser.take(), rest)
        if rest is None:
            self._finish()
        else:
            self.state = State.BODY
            if self._request is not None:
                self._request.stage = Stage.BODY

    def _finish(self) -> None:
        # Not after a request with `Connection: close` either: few servers repeat that.
        last = self._request is None or self._request.is_last
        if self._reusable and self._parser.keep_alive and not last:
            self._detach()
            self.state = State.IDLE
        else:
            self.close()

    def _detach(self) -> None:
        """Let go of the loop and the request."""
        if self._readiness is not None:
            self._readiness.detach()
            self._readiness = None
        if self._request is not None:
            self._request.abort = None
            self._request = None

    # Sending.

    def _send_first(self, request: Request) -> list[memoryview]:
        """Send the head, and a small body with it, without waiting; what is left to be sent."""
        self.state = State.SENDING
        request.stage = Stage.SENDING
        first, rest = self._first_piece(request)
        try:
            sent = self._io.send(first)
        except BrokenConnectionError as exc:
            raise ConnectError(f"{self._what()}: closed before anything was sent: {exc}") from exc
        if sent < len(first):
            rest.insert(0, memoryview(first)[sent:])
        return rest

    def _first_piece(self, request: Request) -> tuple[bytes, list[memoryview]]:
        """What goes out in the first send, and what of the body is left for later."""
        head = request.head(self._authority)
        body = request.body
        if body is None:
            return head, []
        at_once = 0 if request.expect_continue else SMALL_BODY
        if self._io.is_tls:
            # One record: of several, some may have been sent when a send fails.
            at_once = min(at_once, max(0, TLS_RECORD - len(head)))
        if isinstance(body, bytes) and len(body) <= at_once:
            return head + body, []
        view = memoryview(body).cast("B")
        rest = view[at_once:]
        return b"".join((head, view[:at_once])), [rest] if rest else []

    async def _is_answered_first(self) -> bool:
        """Wait for 100 or an answer, but not for long; whether it is an answer."""
        timeout = self._readiness.timeout if self._readiness is not None else None
        patience = _CONTINUE_PATIENCE if timeout is None else min(_CONTINUE_PATIENCE, timeout / 2)
        await self._wait(self._take_interim, patience)
        return self._parser.head_complete

    async def _send_rest(self, request: Request, views: list[memoryview]) -> None:
        """Send what is left of the request; stop if the answer comes long before its end."""
        # Until the last byte is sent, the server would take the next request for the rest.
        self._reusable = False
        if request.expect_continue and len(views) == 1 and await self._is_answered_first():
            return
        left = sum(map(len, views))
        answered = False
        try:
            for view in views:
                while view:
                    sent = self._io.send(view[:_SEND])
                    view = view[sent:]
                    left -= sent
                    if sent:
                        await checkpoint()
                    elif answered:
                        return
                    else:
                        assert self._readiness is not None
                        await self._readiness.readable_or_writable()
                    if view and not answered:
                        answered = self._take_head() is Received.ENOUGH
                        if answered and left > _WORTH_SENDING:
                            return
        except BrokenConnectionError:
            # The answer may have come before the end: reading will tell.
            return
        self._reusable = True

    # Steps of receiving (see `Readiness.until`).

    async def _wait(self, step: Step, patience: float | None = None) -> bool:
        """Receive until `step` has ENOUGH; False if it has not within `patience` seconds."""
        if self._io.is_tls or self._parser.begun:
            # Bytes may have come that no wait announces: the parser has them, or TLS.
            while (received := step()) is Received.SOME:
                pass
            if received is Received.ENOUGH:
                # A server that is always ahead must not keep the loop from its other tasks.
                await checkpoint()
                return True
        assert self._readiness is not None
        return await self._readiness.until(step, patience)

    def _take_answer(self) -> Received:
        """Enough is all of a small answer, or the head of a large one."""
        parser = self._parser
        if not parser.ready and self._absorb(_RECEIVE) is Received.NOTHING:
            return Received.NOTHING
        return Received.ENOUGH if parser.ready else Received.SOME

    def _take_head(self) -> Received:
        received = self._take_answer()
        return Received.ENOUGH if self._parser.head_complete else received

    def _take_interim(self) -> Received:
        received = self._take_head()
        return Received.ENOUGH if self._parser.continued else received

    def _take_body(self) -> Received:
        """Enough is a full room, or the end of the body."""
        parser = self._parser
        if parser.bypassed:
            count = self._io.receive_into(self._room)
            if count is None:
                return Received.NOTHING
            if count:
                parser.pass_over(count)
            else:
                self._end_stream()
        else:
            # No more body can come of it than there is room for.
            if self._absorb(min(len(self._room), _RECEIVE)) is Received.NOTHING:
                return Received.NOTHING
            piece = parser.take()
            count = len(piece)
            self._room[:count] = piece
        self._room = self._room[count:]
        return Received.ENOUGH if parser.complete or not self._room else Received.SOME

    def _absorb(self, size: int) -> Received:
        """Take in what has come, without waiting."""
        data = self._io.receive(size)
        if data is None:
            return Received.NOTHING
        if data:
            self._parser.feed(data)
        else:
            self._end_stream()
        return Received.SOME

    def _end_stream(self) -> None:
        if not self._parser.begun:
            raise BrokenConnectionError("end of stream")
        self._parser.end()

    # Failures.

    def _fail(
        self, failure: BaseException, tell: Callable[[Connection], object] | None = None
    ) -> NoReturn:
        """Close the connection, `tell` of it, and raise what its user gets to see."""
        seen = self._seen_as(failure)
        self.close()
        if tell is not None:
            tell(self)
        if seen is None:
            raise failure
        raise seen from failure.__cause__

    def _seen_as(self, failure: BaseException) -> ServiceError | None:
        """What a failure of ours is to its user; None for any other one."""
        if isinstance(failure, ProtocolError):
            return ProtocolError(f"{self._what()}: {failure}")
        if isinstance(failure, SilenceError):
            assert self._readiness is not None
            doing = "taking in the request" if self.state is State.SENDING else "answering"
            return ServiceTimeout(
                f"{self._what()}: the server was silent for {self._readiness.timeout:g} s "
                f"while {doing}"
            )
        if isinstance(failure, OSError) and not isinstance(failure, ServiceError):
            # The loop cannot wait for it: no descriptor, or no memory, is left for that.
            if self.state is State.IDLE:
                return connect_error(self._what(), failure)
            return ExchangeError(f"{self._what()}: {failure.strerror or failure}")
        if not isinstance(failure, BrokenConnectionError):
            return None
        if self._parser.begun:
            return ExchangeError(f"{self._what()}: broke off in the answer: {failure}")
        closed = ClosedBeforeAnswerError(f"{self._what()}: closed without an answer: {failure}")
        closed.is_first = not self.idle_since
        return closed

    def _what(self) -> str:
        request = self._request
        return f"{request.method} {self.origin}{request.target}" if request else str(self.origin)
