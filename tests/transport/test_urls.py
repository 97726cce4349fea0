"""Service URLs: what is one, and what a bad one is told."""

from __future__ import annotations

import contextlib
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamless_remote.transport.messages import Request
from seamless_remote.transport.urls import Origin, is_loopback, parse_url


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
        ("http://[fe80::1%25lo]:80/x", Origin("http", "fe80::1%lo", 80), "/x"),
        ("http://[fe80::1%Eth0.1]", Origin("http", "fe80::1%Eth0.1", 80), ""),
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
        ("http://[::1", "not a service URL"),
        ("http://[::g]", "not a service URL"),
        ("http://::1:80", "not a service URL"),
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


PIECES = st.sampled_from(
    ["http", "https", "://", ":", "/", "//", "@", "?", "#", "[", "]", "[::1]", "[fe80::1%eth0]",
     ".", "..", "-", "_", "localhost", "127.0.0.1", "a.b", "xn--a", "80", "0", "65536", "%", "%00",
     "\0", "\\", " ", "\t", "\n", "\u00e9", "\u0130", "\ud800", "a" * 63, "a" * 64, "9" * 5000]
)  # fmt: skip
URLS = (
    st.text()
    | st.lists(PIECES, max_size=9).map("".join)
    | st.builds(
        "{}://{}{}".format,
        st.sampled_from(["http", "https", "HTTP"]),
        st.lists(PIECES, max_size=5).map("".join) | st.text(max_size=20),
        st.sampled_from(["", ":80", ":1", ":99999", "/", "/base path"]),
    )
)


@given(url=URLS)
@settings(deadline=None, max_examples=500)
def test_any_text_is_refused_or_names_an_origin_that_can_be_dialed(url: str) -> None:
    try:
        origin, path = parse_url(url)
    except ValueError:
        return
    assert origin.scheme in ("http", "https")
    assert 0 < origin.port < 65536
    assert path == "" or (path[0] == "/" and path[-1] != "/")
    assert parse_url(str(origin))[0] == origin
    assert Request("GET", f"{path}/x").head(origin.authority).startswith(b"GET /")
    # As a look-up and a handshake begin: a name that they cannot take is an error of another type.
    with contextlib.suppress(socket.gaierror):
        socket.getaddrinfo(origin.host, origin.port, flags=socket.AI_NUMERICHOST)
    assert origin.host.partition("%")[0].encode("idna")


@pytest.mark.parametrize("url", [None, 5, b"http://host", ["http://host"]])
def test_what_is_no_text_is_a_type_error(url: object) -> None:
    with pytest.raises(TypeError, match="must be a string"):
        parse_url(url)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        ("localhost", True),
        ("db.localhost", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost.org", False),
        ("128.0.0.1", False),
        ("fe80::1%lo", False),
        ("127.0.0.1.org", False),
    ],
)
def test_loopback_is_known_by_name_and_by_address(host: str, is_here: bool) -> None:
    assert is_loopback(host) is is_here


@pytest.mark.parametrize("url", ["http://[fe80::1%25lo]:81", "http://[fe80::1%lo]:81"])
def test_a_zone_is_written_as_in_a_url_and_told_to_no_server(url: str) -> None:
    origin, _ = parse_url(url)
    assert str(origin) == "http://[fe80::1%25lo]:81"
    assert origin.authority == "[fe80::1]:81"


@pytest.mark.parametrize("zone", ["", "%25", "a b", "a/b", "a%20b"])
def test_what_is_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="is not a service URL"):
        parse_url(f"http://[fe80::1%25{zone}]:81")
