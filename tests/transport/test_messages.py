"""Requests as they are sent, and the headers of answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seamless_remote.transport.messages import Headers, Request, Stage

# Whatever could end a line or a request.
TEXT = st.text() | st.text("ab:/ \r\n\t\0\u00e9", max_size=8)


@given(
    target=TEXT, headers=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple), body=st.binary()
)
def test_a_request_is_one_request_or_a_value_error(
    target: str, headers: tuple[tuple[str, str], ...], body: bytes
) -> None:
    try:
        head = Request("PUT", target, headers, body).head("host:80")
    except ValueError:
        return
    lines = head.split(b"\r\n")
    assert lines[0] == f"PUT {target} HTTP/1.1".encode()
    assert lines[0].count(b" ") == 2
    assert lines[1:-3] == [b"Host: host:80", *(f"{n}: {v}".encode() for n, v in headers)]
    assert lines[-3:] == [b"Content-Length: %d" % len(body), b"", b""]
    assert head.count(b"\r") == head.count(b"\n") == len(headers) + 4


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
@pytest.mark.parametrize("body", [None, b"", memoryview(b"abcd"), memoryview(bytes(8)).cast("d")])
def test_the_length_of_a_body_is_in_bytes(method: str, body: bytes | memoryview | None) -> None:
    request = Request(method, "/", body=body)
    length = 0 if body is None else memoryview(body).nbytes
    assert request.body_length == length
    announced = f"Content-Length: {length}\r\n".encode() in request.head("host")
    assert announced is (body is not None or method != "GET")


def test_a_request_says_what_it_waits_for() -> None:
    request = Request("GET", "/x")
    request.stage = Stage.QUEUED
    assert str(request) == "a free connection (GET /x)"


def test_headers_match_in_any_case_and_keep_their_order() -> None:
    headers = Headers([(b"A", b"1"), (b"Set-B", b"2"), (b"a", b"3"), (b"c", b"\xe9")])
    assert headers["a"] == headers.get("A") == "1"
    assert headers.get("d") is None
    assert headers.get("d", "x") == "x"
    assert "set-b" in headers
    assert "d" not in headers
    assert list(headers) == [("A", "1"), ("Set-B", "2"), ("a", "3"), ("c", "\u00e9")]
    assert len(headers) == 4
    with pytest.raises(KeyError):
        headers["d"]


LATIN = st.text(st.characters(max_codepoint=255))


@given(raw=st.lists(st.tuples(st.binary(), st.binary())), name=LATIN)
def test_any_bytes_make_headers_that_can_be_read(raw: list[tuple[bytes, bytes]], name: str) -> None:
    headers = Headers(raw)
    assert len(list(headers)) == len(raw)
    assert (name in headers) is (headers.get(name) is not None)
    for key, value in headers:
        assert key in headers
        assert isinstance(value, str)
