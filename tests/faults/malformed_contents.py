"""The tables of answers that are proper HTTP, with a body that is wrong for what was asked."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable, Iterator

import zstandard
from malformed_answers import OK, broken, gzip_zeros, whole, zstd_zeros

HEX = "ab" * 32
ZSTD = b"Content-Encoding: zstd\r\n"
GZIP = b"Content-Encoding: gzip\r\n"
DEEP = b"[" * 100_000

NO_JSON = [
    whole("an empty body", b""),
    whole("a word", b"hello"),
    whole("HTML", b"<html><body>Log in first</body></html>"),
    whole("JSON cut short", b'[{"a": 1'),
    whole("two JSON values", b"[1] [2]"),
    whole("bytes that are no text", bytes(range(128, 256))),
    whole("JSON nested without end", DEEP),
    whole("a number of a million digits", b"1" * 1_000_000),
    whole("a body longer than any answer", bytes(65 << 20)),
]

NO_OBJECT = [
    *NO_JSON,
    whole("null for an object", b"null"),
    whole("true for an object", b"true"),
    whole("a number for an object", b"12"),
    whole("a string for an object", b'"abc"'),
    whole("a list for an object", b"[{}]"),
]

NO_LIST = [
    *NO_JSON,
    whole("null for a list", b"null"),
    whole("an object for a list", b"{}"),
    whole("a number for a list", b"1"),
    whole("a string for a list", b'"abc"'),
]

NO_RECORDS = [
    *NO_LIST,
    whole("numbers for records", b"[1, 2]"),
    whole("a null among records", b"[{}, null]"),
    whole("lists for records", b"[[]]"),
]

NO_CHECKSUMS = [
    *NO_LIST,
    whole("numbers for checksums", b"[1]"),
    whole("a null for a checksum", b"[null]"),
    whole("objects for checksums", b"[{}]"),
    whole("a short checksum in a list", b'["%s"]' % HEX[:63].encode()),
    whole("a wrong one after a right one", b'["%s", "x"]' % HEX.encode()),
]

NO_CHECKSUM = [
    whole("no checksum at all", b""),
    whole("a word for a checksum", b"hello"),
    whole("a checksum of 63 digits", HEX[:63].encode()),
    whole("a checksum of 65 digits", HEX.encode() + b"a"),
    whole("a checksum in capitals", HEX.upper().encode()),
    whole("a checksum and a line feed", HEX.encode() + b"\n"),
    whole("a checksum in quotes", b'"%s"' % HEX.encode()),
    whole("a checksum of other letters", b"xy" * 32),
    whole("a checksum as bytes", bytes(range(32))),
    whole("a checksum that is no text", b"\xff" * 64),
    whole("null for a checksum", b"null"),
    whole("a body longer than any answer", bytes(65 << 20)),
]

NO_LENGTHS = [
    *NO_LIST,
    whole("a list too short", b"[]"),
    whole("a list too long", b"[1, 2]"),
    whole("a string for a length", b'["100"]'),
    whole("a negative length for a buffer", b"[-1]"),
    whole("a fraction for a length", b"[1.5]"),
    whole("null for a length", b"[null]"),
    whole("false for a length", b"[false]"),
    whole("an object for a length", b"[{}]"),
    whole("not a number for a length", b"[NaN]"),
    whole("an infinite length", b"[1e999]"),
]

NO_PRESENCE = [
    *NO_LIST,
    whole("no presence", b"[]"),
    whole("two presences", b"[true, true]"),
    whole("a string for a presence", b'["false"]'),
    whole("null for a presence", b"[null]"),
    whole("a number for a presence", b"[7]"),
]

WRONG_BYTES = [
    whole("no bytes", b""),
    whole("other bytes", b"other bytes"),
    whole("many other bytes", bytes(3_000_000)),
    whole("other bytes in zstd", zstandard.compress(b"other"), headers=ZSTD),
    whole("other bytes in gzip", gzip.compress(b"other"), headers=GZIP),
    whole("plain bytes called zstd", b"plain bytes", headers=ZSTD),
    whole("plain bytes called gzip", b"plain bytes", headers=GZIP),
    whole("nothing called zstd", b"", headers=ZSTD),
    whole("nothing called gzip", b"", headers=GZIP),
    whole("zstd cut short", zstandard.compress(bytes(1000))[:-3], headers=ZSTD),
    whole("gzip cut short", gzip.compress(bytes(1000))[:-3], headers=GZIP),
    whole("gzip with a wrong sum", gzip.compress(b"x")[:-8] + bytes(8), headers=GZIP),
    whole("zstd and something after it", zstandard.compress(b"x") + b"tail", headers=ZSTD),
    whole("gzip and something after it", gzip.compress(b"x") + b"tail", headers=GZIP),
    whole("an unknown coding", b"x", headers=b"Content-Encoding: br\r\n"),
    whole("two codings", b"x", headers=b"Content-Encoding: gzip, zstd\r\n"),
    whole("a part that nobody asked for", b"x", status=206),
    whole("no content", b"", status=204),
]


def _endless(head: bytes, piece: Callable[[], bytes]) -> Callable[[], Iterator[bytes]]:
    return lambda: itertools.chain([head + b"\r\n"], itertools.repeat(piece()))


WITHOUT_END = [
    broken("zeros without end", endless=_endless(OK, lambda: bytes(1 << 20))),
    broken("zstd that inflates without end", endless=_endless(OK + ZSTD, zstd_zeros)),
    broken("gzip that inflates without end", endless=_endless(OK + GZIP, gzip_zeros)),
    whole("1 MB of zstd that stands for 20 GiB", zstd_zeros() * 10, headers=ZSTD),
]
"""Memory must be bounded by something else than these."""
