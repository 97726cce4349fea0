"""One HTTP/1.1 connection: one exchange after another over one wire."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio.lowlevel import checkpoint

from seamless_remote.errors import ConnectError, ExchangeError, ProtocolError, ServiceTimeout

from .messages import Headers, Origin, Request, Response, StreamBody
from .parsing import SMALL_BODY, AnswerParser
from .socket_io import Wire, WireBroken

T = TypeVar("T", bytes, int)

_RECEIVE = 65536
_SEND = 262144
# RFC 9110, 10.1.1: a client does not wait for 100 without end; old servers never send it.
_CONTINUE_PATIENCE = 1.0


class State(enum.Enum):
    """Where a connection stands."""

    IDLE = enum.auto()
    SENDING = enum.auto()
    AWAITING = enum.auto()
    BODY = enum.auto()
    CLOSED = enum.auto()


class ClosedBeforeAnswer(ExchangeError):
    """The connection ended before the first byte of an answer, with the request (partly) sent.

    On a reused connection that mostly means that the server had closed it for being idle.
    """


class Connection:
    """An HTTP/1.1 connection over a wire, which it owns.

    `on_end` is called once for each answer of which the body was still to come when `exchange`
    returned: at the body's end (state IDLE, or CLOSED where the connection cannot serve again) or
    when it was given up (CLOSED). It must not be shared by tasks, `abort` aside.
    """

    __slots__ = (
        "_authority",
        "_name",
        "_on_end",
        "_parser",
        "_request",
        "_reusable",
        "_room",
        "_wire",
        "idle_since",
        "state",
    )

    def __init__(self, wire: Wire, origin: Origin, on_end: Callable[[Connection], None]) -> None:
        self._wire = wire
        self._name = str(origin)
        self._authority = origin.authority
        self._on_end = on_end
        self._parser = AnswerParser()
        self._request: Request | None = None
        self._reusable = True
        self._room = memoryview(b"")
        self.idle_since = 0.0
        self.state = State.IDLE

    def is_stale(self) -> bool:
        """Whether an idle connection was closed, or spoken on, by the server."""
        return self._wire.is_stale()

    def close(self) -> None:
        """Close it, now. For the task that uses the connection, or when none does."""
        self.state = State.CLOSED
        self._parser.discard()
        self._wire.close()
        self._forget_request()

    def abort(self) -> None:
        """End it from another task of its loop: who waits on it gets an ExchangeError."""
        self._wire.end()

    async def exchange(self, request: Request, read_timeout: float | None) -> Response:
        """Send `request` and wait for the head of the answer (for all of it when it is small).

        `read_timeout` bounds the silence, in seconds. Raises ConnectError when nothing could be
        sent, ClosedBeforeAnswer, ProtocolError, ServiceTimeout, or another ExchangeError. After
        any error, and after cancellation, the connection is closed.
        """
        parser = self._parser
        parser.expect(request.method)
        self._request = request
        request.abort = self._wire.shut_down
        self._wire.timeout = read_timeout
        try:
            await self._wire.within_timeout(self._converse(request))
        except WireBroken as exc:
            broken = self._broken(exc)
            self.close()
            raise broken from exc.__cause__
        except BaseException:
            self.close()
            raise
        source = None
        if parser.complete:
            self._finish()
        else:
            self.state = State.BODY
            source = self
        return Response(
            parser.status, Headers(parser.headers), parser.length, parser.take(), source
        )

    async def receive(self, room: memoryview) -> tuple[int, bool]:
        """Fill `room`, or what of it the rest of the body takes (see `BodySource`)."""
        self._room = room
        try:
            await self._wire.within_timeout(self._wire.receive_until(self._take_body))
        except BaseException as exc:
            broken = self._broken(exc) if isinstance(exc, WireBroken) else None
            self.close()
            self._on_end(self)
            if broken is not None:
                raise broken from exc.__cause__
            raise
        finally:
            left, self._room = len(self._room), memoryview(b"")
        complete = self._parser.complete
        if complete:
            self._finish()
            self._on_end(self)
        return len(room) - left, complete

    async def aclose(self) -> None:
        """Give up the rest of the body, and with it the connection. Does not block."""
        self.close()
        self._on_end(self)

    def _finish(self) -> None:
        self._forget_request()
        if self._reusable and self._parser.keep_alive and not self._wire.ended:
            self.state = State.IDLE
        else:
            self.close()

    def _forget_request(self) -> None:
        if self._request is not None:
            self._request.abort = None
            self._request = None

    async def _converse(self, request: Request) -> None:
        self.state = State.SENDING
        stream = request.body if isinstance(request.body, StreamBody) else None
        first, rest = self._first_piece(request)
        try:
            sent = self._wire.send(first)
        except WireBroken as exc:
            raise ConnectError(f"{self._what()}: closed before anything was sent: {exc}") from exc
        if sent < len(first):
            rest.insert(0, memoryview(first)[sent:])
        elif request.expect_continue and (rest or stream) and await self._is_answered_first():
            self._reusable = False
            rest, stream = [], None
        if rest or stream:
            await self._upload(rest, stream)
        self.state = State.AWAITING
        if not self._parser.ready:
            await self._wire.receive_until(self._take_answer)

    def _first_piece(self, request: Request) -> tuple[bytes, list[memoryview]]:
        """What goes out in the first send, and what of a body in memory is left for later."""
        head = request.head(self._authority)
        body = request.body
        if body is None or isinstance(body, StreamBody):
            return head, []
        at_once = 0 if request.expect_continue else SMALL_BODY
        if isinstance(body, bytes) and len(body) <= at_once:
            return head + body, []
        view = memoryview(body).cast("B")
        rest = view[at_once:]
        return b"".join((head, view[:at_once])), [rest] if rest else []

    async def _is_answered_first(self) -> bool:
        """Wait for 100 or an answer, but not for long; whether it is an answer."""
        parser = self._parser
        timeout = self._wire.timeout
        patience = _CONTINUE_PATIENCE if timeout is None else min(_CONTINUE_PATIENCE, timeout / 2)
        with anyio.move_on_after(patience):
            if not (parser.continued or parser.head_complete):
                await self._wire.receive_until(self._take_word)
        return parser.head_complete

    async def _upload(self, rest: list[memoryview], body: StreamBody | None) -> None:
        """Send what is left of the request, and stop when the answer comes before its end."""
        failures: list[Exception] = []
        self._reusable = not rest and body is not None and not body.length
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch_for_answer, group.cancel_scope, failures)
            try:
                for view in rest:
                    await self._send_all(view, last=body is None and view is rest[-1])
                if body is not None:
                    await self._send_stream(body)
            except WireBroken as exc:
                # Unless it was ended here, the answer may have come before: reading will tell.
                if self._wire.ended:
                    failures.append(exc)
            except Exception as exc:
                # Raised outside the task group, which would wrap it.
                failures.append(exc)
            group.cancel_scope.cancel()
        if failures:
            raise failures[0]

    async def _watch_for_answer(
        self, sending: anyio.CancelScope, failures: list[Exception]
    ) -> None:
        try:
            if not self._parser.head_complete:
                await self._wire.receive_until(self._take_head)
        except (WireBroken, ProtocolError) as exc:
            failures.append(exc)
        sending.cancel()

    async def _send_all(self, view: memoryview, *, last: bool) -> None:
        """Send a piece of the request; the connection can serve again once the last is sent."""
        wire = self._wire
        while view:
            sent = wire.send(view[:_SEND])
            if not sent:
                await wire.writable()
                continue
            view = view[sent:]
            wire.note_progress()
            # Before anything is awaited: the server may answer now, and that ends the sending.
            self._reusable = last and not view
            await checkpoint()

    async def _send_stream(self, body: StreamBody) -> None:
        left = body.length
        chunks = body.chunks()
        try:
            while left >= 0:
                # The time that the caller takes to make a chunk is not the server's silence.
                self._wire.pause_timeout()
                chunk = await anext(chunks, None)
                self._wire.note_progress()
                if chunk is None:
                    break
                view = memoryview(chunk).cast("B")
                left -= view.nbytes
                if left >= 0:
                    await self._send_all(view, last=left == 0)
        finally:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                with anyio.CancelScope(shield=True):
                    await close()
        if left:
            made = f"more than {body.length}" if left < 0 else f"only {body.length - left}"
            raise ValueError(f"a request body of {body.length} bytes was announced, {made} came")

    # Steps of receiving (see `Wire.receive_until`).

    def _take_answer(self) -> bool:
        moved = self._absorb(_RECEIVE)
        ready = self._parser.ready
        if moved and not ready:
            self._wire.note_progress()
        return ready

    def _take_head(self) -> bool:
        return self._take_answer() or self._parser.head_complete

    def _take_word(self) -> bool:
        return self._take_head() or self._parser.continued

    def _take_body(self) -> bool:
        """Whether the room is full, or the body complete."""
        parser = self._parser
        if parser.bypassed:
            count = self._wire.receive_into(self._room)
            if count is None:
                return False
            self._parse(parser.pass_over, count)
        else:
            # No more body can come of it than there is room for.
            if not self._absorb(min(len(self._room), _RECEIVE)):
                return False
            piece = parser.take()
            count = len(piece)
            self._room[:count] = piece
        self._room = self._room[count:]
        if parser.complete or not self._room:
            return True
        self._wire.note_progress()
        return False

    def _absorb(self, size: int) -> bool:
        """Take in what has come, without waiting; whether anything had."""
        data = self._wire.receive(size)
        if data is None:
            return False
        self._parse(self._parser.feed, data)
        return True

    def _parse(self, step: Callable[[T], None], received: T) -> None:
        """Tell the parser what was received; nothing is the end of the stream."""
        try:
            if received:
                step(received)
            elif self._wire.ended or not self._parser.begun:
                raise WireBroken("end of stream")
            else:
                self._parser.end()
        except ProtocolError as exc:
            raise ProtocolError(f"{self._what()}: {exc}") from None

    def _what(self) -> str:
        request = self._request
        return f"{request.method} {self._name}{request.target}" if request else self._name

    def _broken(self, cause: WireBroken) -> ExchangeError:
        wire = self._wire
        if wire.timed_out:
            doing = "taking in the request" if self.state is State.SENDING else "answering"
            return ServiceTimeout(
                f"{self._what()}: the server was silent for {wire.timeout:g} s while {doing}"
            )
        if wire.ended:
            return ExchangeError(f"{self._what()}: the connection was closed on this side")
        if not self._parser.begun:
            return ClosedBeforeAnswer(f"{self._what()}: closed without an answer: {cause}")
        return ExchangeError(f"{self._what()}: broke off in the answer: {cause}")
