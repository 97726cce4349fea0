"""Service URLs: what is one, and what a bad one is told."""

from __future__ import annotations

import pytest

from seamless_remote.transport import Headers, Origin, parse_url


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("http://localhost:8000", Origin("http", "localhost", 8000), ""),
        ("http://localhost:8000/", Origin("http", "localhost", 8000), ""),
        ("http://HOST", Origin("http", "host", 80), ""),
        ("HTTPS://host", Origin("https", "host", 443), ""),
        ("https://a.b.org:444/base/path/", Origin("https", "a.b.org", 444), "/base/path"),
        ("http://127.0.0.1:1/a%20b", Origin("http", "127.0.0.1", 1), "/a%20b"),
        ("http://[::1]:5000", Origin("http", "::1", 5000), ""),
        ("http://[fe80::1]", Origin("http", "fe80::1", 80), ""),
        ("http://node_1:65535", Origin("http", "node_1", 65535), ""),
    ],
)
def test_a_service_url_is_split(url: str, origin: Origin, path: str) -> None:
    assert parse_url(url) == (origin, path)
    again, _ = parse_url(str(origin))
    assert again == origin


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "http:// or https://"),
        ("localhost:8000", "http:// or https://"),
        ("ftp://host", "http:// or https://"),
        ("//host", "http:// or https://"),
        ("http://", "names no host"),
        ("http:///path", "names no host"),
        ("http://:80", "names no host"),
        ("http://user:pw@host", "user name or a password"),
        ("http://@host", "user name or a password"),
        ("http://host:0", "port"),
        ("http://host:", "port"),
        ("http://host:65536", "[Pp]ort"),
        ("http://host:-1", "[Pp]ort"),
        ("http://host:http", "[Pp]ort"),
        ("http://host?", "query or a fragment"),
        ("http://host/?a=b", "query or a fragment"),
        ("http://host/#", "query or a fragment"),
        ("http://[::1", "no service URL"),
        ("http://[::g]", "no service URL"),
        ("http://::1:80", "no service URL"),
        ("http://ho st", "blanks"),
        ("http://host\n", "blanks"),
        ("http://h\u00f6st", "ASCII"),
        ("http://host/\u00f6", "ASCII"),
    ],
)
def test_what_is_no_service_url_is_told_why(url: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_url(url)


def test_a_password_is_not_repeated_in_the_complaint() -> None:
    with pytest.raises(ValueError, match="password") as caught:
        parse_url("http://me:secret@host")
    assert "secret" not in str(caught.value)


def test_an_origin_is_written_as_in_a_url() -> None:
    assert str(Origin("http", "::1", 80)) == "http://[::1]"
    assert Origin("https", "host", 80).authority == "host:80"
    assert len({Origin("http", "a", 1), Origin("http", "a", 1), Origin("http", "a", 2)}) == 2


def test_headers_match_in_any_case_and_keep_their_order() -> None:
    headers = Headers([(b"A", b"1"), (b"Set-B", b"2"), (b"a", b"3"), (b"c", b"\xe9")])
    assert headers["a"] == headers.get("A") == "1"
    assert headers.get_all("a") == ["1", "3"]
    assert headers.get("d") is None
    assert headers.get("d", "x") == "x"
    assert "set-b" in headers
    assert "d" not in headers
    assert list(headers) == [("A", "1"), ("Set-B", "2"), ("a", "3"), ("c", "\u00e9")]
    assert len(headers) == 4
    with pytest.raises(KeyError):
        headers["d"]
