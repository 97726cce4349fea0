"""Answers that are not quite HTTP, and that everybody takes."""

from __future__ import annotations

import pytest

from seamless_remote.errors import ProtocolError
from seamless_remote.transport.parsing import MAX_HEAD, AnswerParser

OK = b"HTTP/1.1 200 OK\r\n"
TAKEN = {
    "the same length twice": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "the same length in one line": OK + b"content-length: 2, 2\r\nA: b\r\n\r\nab",
    "lengths apart": OK + b"Content-Length: 2\r\nA: b\r\nCONTENT-LENGTH:2\r\n\r\nab",
    "bare line feeds": b"HTTP/1.1 200 OK\nA: b\nContent-Length: 2\n\nab",
    "one bare line feed": OK + b"A: b\nContent-Length: 2\r\n\r\nab",
    "a bare line feed at the end": OK + b"Content-Length: 2\r\n\nab",
    "after an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n"
    + OK
    + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "bare line feeds in chunks": b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n"
    b"2\r\nab\r\n0\r\n\r\n",
}
REFUSED = {
    "lengths that differ": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "lengths that differ in one line": OK + b"Content-Length: 2, 3\r\n\r\nabc",
    "lengths and chunks": OK
    + b"Content-Length: 2\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a line that is no header": b"HTTP/1.1 200 OK\nno colon here\n\nab",
    "a length that is none": b"HTTP/1.1 200 OK\nContent-Length: two\n\nab",
}


def feed(parser: AnswerParser, *pieces: bytes) -> bytes:
    """Feed pieces, as a connection does; returns the body in them."""
    body = bytearray()
    for piece in pieces:
        parser.feed(piece)
        body += parser.take()
    return bytes(body)


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize("data", TAKEN.values(), ids=TAKEN)
def test_what_everybody_takes_is_taken_however_it_is_cut(data: bytes, step: int) -> None:
    parser = AnswerParser()
    body = feed(parser, *(data[start : start + step] for start in range(0, len(data), step)))
    assert (parser.status, body, parser.complete) == (200, b"ab", True)
    parser.expect()
    parser.feed(OK + b"Content-Length: 1\r\n\r\nc")
    assert (parser.take(), parser.complete) == (b"c", True)


@pytest.mark.parametrize("step", [1, 10_000])
@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_could_mean_two_things_is_refused(data: bytes, step: int) -> None:
    with pytest.raises(ProtocolError, match="malformed answer"):
        feed(AnswerParser(), *(data[start : start + step] for start in range(0, len(data), step)))


def test_a_head_that_cannot_be_mended_is_refused_at_once() -> None:
    with pytest.raises(ProtocolError, match="malformed answer"):
        AnswerParser().feed(b"HTTP/1.1 20x OK\r\nContent-")


def test_a_head_to_be_mended_is_no_longer_than_others() -> None:
    with pytest.raises(ProtocolError, match="longer than"):
        feed(AnswerParser(), b"HTTP/1.1 200 OK\nA: b", *([b"b" * 100] * MAX_HEAD))


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "chunk",
    [b"1;" + b"a" * 50_000 + b"\r\nx\r\n", b"0" * 50_000 + b"1\r\nx\r\n", b'1;a="b"' * 20],
    ids=["extensions", "zeros", "a long extension"],
)
def test_chunks_that_are_all_but_empty_do_not_go_on_for_ever(chunk: bytes) -> None:
    with pytest.raises(ProtocolError):
        feed(AnswerParser(), CHUNKED, *([chunk] * 10_000))


def test_a_body_in_chunks_of_one_byte_is_taken() -> None:
    parser = AnswerParser()
    body = feed(parser, CHUNKED, *([b"1;a=b\r\nx\r\n" * 1000] * 100), b"0\r\n\r\n")
    assert (len(body), parser.complete) == (100_000, True)
