"""The client's side of HTTP/1.1 answers, as a function of bytes: no sockets, no clocks."""

from __future__ import annotations

import re

import httptools

from ..errors import ProtocolError

MAX_HEAD = 65536
MAX_INTERIM = 16
# Bodies up to this size are parsed to their end; of longer ones the parser sees only the head.
SMALL_BODY = 65536
_SURPLUS = "bytes that nobody asked for came after it"
# Bytes of chunk headers for each byte of the body: a chunk of one byte takes five.
_MOST_FRAMING = 32
# What a head has that the parser refuses and others take: a bare LF, a length said twice.
_TAKEN = re.compile(
    rb"(?<!\r)\n|^content-length:([^\n]*,|.*^content-length:)", re.IGNORECASE | re.M | re.S
)
_INTERIM = re.compile(rb"HTTP/1\.[01] 1[0-9][0-9]")
_HEAD_END = re.compile(rb"\r?\n\r?\n")


class AnswerParser:
    """Reads one answer after another; `expect` starts the next one. Never the answer to a HEAD.

    `begun` turns true with the first byte, `continued` with a 100, `head_complete` and `complete`
    with the end of the head and of the body. `ready` says that the answer can be handed on: all of
    it when it is small, else its head. Any fault is a ProtocolError, and is final.
    """

    __slots__ = (
        "_awry",
        "_body",
        "_fault",
        "_fed",
        "_framing",
        "_head",
        "_head_size",
        "_interim",
        "_parser",
        "_pieces",
        "_remaining",
        "_until_end",
        "begun",
        "complete",
        "continued",
        "head_complete",
        "headers",
        "keep_alive",
        "length",
        "ready",
        "status",
    )

    def __init__(self) -> None:
        self._parser: httptools.HttpResponseParser | None = None
        self._pieces: list[bytes] = []
        self.expect()

    def expect(self) -> None:
        """Start over for the next answer."""
        self._fault: str | None = None
        self._framing = 0
        # After the head: bytes fed, and those of the body among them.
        self._fed = 0
        self._body = 0
        # The head as it came, and what is wrong with it once the parser has refused it.
        self._head = b""
        self._awry: str | None = None
        self._head_size = 0
        self._interim = 0
        # The bytes of the body still to come, once the parser is left out of it.
        self._remaining: int | None = None
        self._until_end = False
        self.begun = False
        self.continued = False
        self.head_complete = False
        self.complete = False
        self.ready = False
        self.keep_alive = False
        self.status = 0
        self.length: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []

    def discard(self) -> None:
        """Let go of the parser, which refers back to this object."""
        self._parser = None

    @property
    def bypassed(self) -> bool:
        """Whether all that comes now is body: it may be received where it belongs (`pass_over`)."""
        return self._remaining is not None or self._until_end

    def take(self) -> bytes:
        """The bytes of the body that have come since the last call."""
        pieces = self._pieces
        if not pieces:
            return b""
        self._pieces = []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def feed(self, data: bytes) -> None:
        """Take in received bytes, as long as the parser is not `bypassed`."""
        if not self.begun:
            self.begun = True
            if not data.startswith(b"H"):
                raise ProtocolError(f"this is no HTTP answer: {data[:40]!r}")
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpResponseParser(self)
        if not self.head_complete:
            self._head = self._head + data if self._head else data
        if self._awry is None:
            self._parse(parser, data)
        if self._awry is not None:
            self._mend(self._awry)
        if not self.head_complete:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD:
                raise ProtocolError(f"the answer's head is longer than {MAX_HEAD} bytes")
        elif not self.complete:
            self.ready = self.length is None or self.length > SMALL_BODY
            self._bound_framing(len(data))
            self._bypass()

    def _parse(self, parser: httptools.HttpResponseParser, data: bytes) -> None:
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fault = "the server switched to another protocol, unasked"
        except httptools.HttpParserError as exc:
            if not self.head_complete and self._fault is None and _TAKEN.search(self._head):
                self._awry = str(exc)
                return
            self._fault = self._fault or (_SURPLUS if self.complete else str(exc))
        if self._fault is not None:
            raise ProtocolError(f"malformed answer: {self._fault}")

    def _mend(self, fault: str) -> None:
        """Take a head that the parser has refused, if it is one that everybody takes."""
        come = self._head
        end = _HEAD_END.search(come)
        while end is not None and _INTERIM.match(come):  # the parser has had these
            come = come[end.end() :]
            end = _HEAD_END.search(come)
        if end is None:
            return
        head, rest = come[: end.end()], come[end.end() :]
        mended = _mended(head)
        if mended == head:
            raise ProtocolError(f"malformed answer: {fault}")
        self._awry = None
        self.headers = []
        self._head = b""
        parser = self._parser = httptools.HttpResponseParser(self)
        self._parse(parser, mended + rest)
        if self._awry is not None:
            raise ProtocolError(f"malformed answer: {self._awry}")

    def pass_over(self, count: int) -> None:
        """Take note of so many bytes of the body, which were received elsewhere."""
        if self._remaining is None:
            return
        self._remaining -= count
        if self._remaining < 0:
            raise ProtocolError("the answer's body is longer than announced")
        self.complete = self._remaining == 0

    def end(self) -> None:
        """Take in the end of the stream: ProtocolError unless the answer is complete with it."""
        if self._until_end:
            self.complete = self.ready = True
        if not self.complete:
            where = "its body" if self.head_complete else "its head"
            raise ProtocolError(f"the server closed the connection before the end of {where}")

    def _bound_framing(self, size: int) -> None:
        """Chunks have extensions, and trailers follow them: neither may go on for ever."""
        self._framing = 0 if self._pieces else self._framing + size
        if self._framing > MAX_HEAD:
            raise ProtocolError(f"{MAX_HEAD} bytes of chunk headers or trailers hold no body")
        self._fed += size
        if self._fed > MAX_HEAD + (_MOST_FRAMING + 1) * self._body:
            raise ProtocolError(
                f"{self._fed} bytes of chunks hold no more than {self._body} bytes of body"
            )

    def _bypass(self) -> None:
        """Leave the parser out of a long body that needs none: its bytes go on uncopied."""
        if self._until_end:
            self._parser = None
        elif self.length is not None and self.length > SMALL_BODY:
            self._remaining = self.length - sum(map(len, self._pieces))
            self._parser = None

    # What follows is called by httptools. An exception would lose its type there: hence `_fault`.

    def on_message_begin(self) -> None:
        if self.complete:
            self._fault = _SURPLUS

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_complete:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        if self.complete:
            return
        self.status = status = parser.get_status_code()
        if status < 200:
            self._interim_head(status)
            return
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._fault = f"HTTP/{version} is not spoken here"
        self.head_complete = True
        self._head = b""
        self._read_framing(parser.should_keep_alive() and version == "1.1")

    def _interim_head(self, status: int) -> None:
        self._interim += 1
        self.headers = []
        if status == 100:
            self.continued = True
        if status == 101:
            self._fault = "the server switched to another protocol, unasked"
        elif status < 100 or self._interim > MAX_INTERIM:
            self._fault = "interim answers without end"

    def _read_framing(self, keep_alive: bool) -> None:
        coded = False
        for name, value in self.headers:
            key = name.lower()
            if key == b"content-length":
                self.length = int(value)
            elif key == b"transfer-encoding":
                coded = True
                chunked = value.lower().rstrip().endswith(b"chunked")
                self._until_end = not chunked
        self.keep_alive = keep_alive
        if self.status in (204, 304):
            self._until_end = False
        elif not coded and self.length is None:
            self._until_end = True

    def on_body(self, data: bytes) -> None:
        self._body += len(data)
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        if self.head_complete:
            self.complete = self.ready = True


def _mended(head: bytes) -> bytes:
    """A head as the parser wants it: lines end with CR LF, and the length is said once.

    RFC 9112, 2.2 and 6.3, allow to take a bare LF, and the same length several times. Of lengths
    that differ none is dropped.
    """
    lines = [line.removesuffix(b"\r") for line in head.split(b"\n")]
    stated = [line for line in lines if line.lower().startswith(b"content-length:")]
    lengths = {each.strip() for line in stated for each in line[15:].split(b",")}
    if len(lengths) == 1:
        lines = [line for line in lines if line not in stated]
        lines.insert(1, b"Content-Length: " + lengths.pop())
    return b"\r\n".join(lines)
