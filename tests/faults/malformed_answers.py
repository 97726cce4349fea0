"""The table of answers that are wrong for every request: no HTTP, or not what was announced."""

from __future__ import annotations

import functools
import gzip
import itertools
from collections.abc import Callable, Iterable, Iterator

import zstandard
from played_answers import End, PlayedAnswer

OK = b"HTTP/1.1 200 OK\r\n"
DRIP = 0.05


def whole(
    name: str, body: bytes, *, status: int = 200, headers: bytes = b"", takes_body: bool = False
) -> PlayedAnswer:
    """An answer that is HTTP as it should be."""
    head = b"HTTP/1.1 %d Made up\r\nContent-Length: %d\r\n%s\r\n" % (status, len(body), headers)
    return PlayedAnswer(name, lambda: [head + body], status=status, takes_body=takes_body)


def broken(
    name: str,
    *pieces: bytes,
    endless: Callable[[], Iterable[bytes]] = tuple,
    end: End = End.STAY,
    pause: float = 0.0,
) -> PlayedAnswer:
    """An answer that is not: these pieces, then perhaps others without end."""
    return PlayedAnswer(name, lambda: itertools.chain(pieces, endless()), end=end, pause=pause)


def _headers() -> Iterator[bytes]:
    return (b"X-%d: %s\r\n" % (number, b"x" * 500) for number in itertools.count())


@functools.cache
def zstd_zeros() -> bytes:
    """Some 100 kB that stand for 2 GiB of zeros, as frames of 64 MiB each."""
    return zstandard.compress(bytes(1 << 26)) * 32


@functools.cache
def gzip_zeros() -> bytes:
    """Some 64 kB that stand for 64 MiB of zeros, as members of 16 MiB each."""
    return gzip.compress(bytes(1 << 24)) * 4


REDIRECTS = [
    whole(f"redirect {status}", b"", status=status, headers=b"Location: http://127.0.0.1:1/x\r\n")
    for status in (300, 301, 302, 303, 307, 308)
]

REFUSALS = [
    whole(f"status {status}", b"made up", status=status)
    for status in (400, 401, 403, 405, 407, 409, 410, 411, 413, 418, 421, 431, 451, 499)
]

OUTAGES = [
    whole(f"status {status}", b"made up", status=status)
    for status in (408, 425, 429, 500, 501, 502, 503, 504, 505, 511, 599)
]

NO_HTTP = [
    broken("an SSH greeting", b"SSH-2.0-OpenSSH_9.6\r\n"),
    broken("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x46"),
    broken("HTTP/0.9", b"hello", end=End.CLOSE),
    broken("an HTTP/2 settings frame", b"\0\0\0\x04\0\0\0\0\0"),
    broken("HTTP/2.0 in the status line", b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
    broken("HTTP/9.9 in the status line", b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n"),
    broken("NUL bytes", bytes(100)),
    broken("a request in place of an answer", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"),
    broken("a status that is no number", b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n"),
    broken("a status of one digit", b"HTTP/1.1 2 OK\r\nContent-Length: 0\r\n\r\n"),
    broken("a status of four digits", b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
    broken("no status", b"HTTP/1.1\r\nContent-Length: 0\r\n\r\n"),
]

BAD_HEADS = [
    broken("headers without end", OK, endless=_headers),
    broken("one header without end", OK + b"X: ", endless=lambda: itertools.repeat(b"x" * 4096)),
    broken("a status line without end", b"HTTP/1.1 200 ", endless=lambda: itertools.repeat(b"OK")),
    broken("a header without a colon", OK + b"Content-Length 5\r\n\r\nhello"),
    broken("a header name with a blank", OK + b"Content Length: 5\r\n\r\nhello"),
    broken("a NUL in a header", OK + b"X: a\0b\r\nContent-Length: 0\r\n\r\n"),
    broken("a negative length", OK + b"Content-Length: -1\r\n\r\n"),
    broken("a length that is no number", OK + b"Content-Length: many\r\n\r\n"),
    broken("a length in hexadecimal", OK + b"Content-Length: 0x5\r\n\r\nhello"),
    broken("a length beyond 64 bits", OK + b"Content-Length: 99999999999999999999\r\n\r\n"),
    broken("two lengths", OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    broken("switching protocols", b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\n\r\n"),
    broken("100 without end", endless=lambda: itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n")),
    broken("102 without end", endless=lambda: itertools.repeat(b"HTTP/1.1 102 Wait\r\n\r\n")),
]

CUT_SHORT = [
    broken("closed at once", end=End.CLOSE),
    broken("reset at once", end=End.RESET),
    broken("closed in the status line", b"HTTP/1.1 20", end=End.CLOSE),
    broken("reset in the status line", b"HTTP/1.1 20", end=End.RESET),
    broken("closed in the headers", OK + b"Content-Le", end=End.CLOSE),
    broken("reset in the headers", OK + b"Content-Le", end=End.RESET),
    broken("a body shorter than announced", OK + b"Content-Length: 99\r\n\r\n[1", end=End.CLOSE),
    broken("a reset in the body", OK + b"Content-Length: 99\r\n\r\n[1", end=End.RESET),
    broken(
        "a long body shorter than announced",
        OK + b"Content-Length: 9000000\r\n\r\n",
        bytes(100_000),
        end=End.CLOSE,
    ),
    broken("a body longer than announced", OK + b"Content-Length: 2\r\n\r\n[1, 2, 3]"),
    broken("two answers", (OK + b"Content-Length: 2\r\n\r\n{}") * 2),
    broken(
        "chunks without a last one",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        end=End.CLOSE,
    ),
    broken(
        "a chunk without a size", OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n"
    ),
    broken(
        "a chunk longer than its size",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
    ),
]

SILENCES = [
    broken("silence"),
    broken("silence in the headers", OK + b"Content-Le"),
    broken("silence after the headers", OK + b"Content-Length: 9\r\n\r\n"),
    broken("silence in the body", OK + b"Content-Length: 9\r\n\r\n[1"),
    broken("an answer later than the timeout", OK + b"Content-Length: 2\r\n\r\n{}", pause=0.6),
    broken("headers drop by drop", OK, endless=lambda: itertools.repeat(b"X: y\r\n"), pause=DRIP),
    broken(
        "a body drop by drop",
        OK + b"Content-Length: 99999\r\n\r\n",
        endless=lambda: itertools.repeat(b" "),
        pause=DRIP,
    ),
]

FOR_EVERY_REQUEST = [*REDIRECTS, *REFUSALS, *OUTAGES, *NO_HTTP, *BAD_HEADS, *CUT_SHORT, *SILENCES]
