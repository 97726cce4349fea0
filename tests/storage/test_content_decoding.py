"""Content codings: whole, in any pieces, cut short, malformed, and blown up."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from seamless_remote.buffers.decoding import ENCODING_BY_SUFFIX, decoder_for
from seamless_remote.errors import ProtocolError

DATA = random.Random(1).randbytes(300_000) + bytes(500_000) + b"text " * 50_000


class Collector:
    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, data: bytes | memoryview) -> None:
        self.pieces.append(bytes(data))

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)


def zstd(data: bytes, *, checksum: bool = False, size: bool = True) -> bytes:
    compressor = zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=size)
    return compressor.compress(data)


def zstd_streamed(data: bytes) -> bytes:
    compressor = zstandard.ZstdCompressor().compressobj()
    return compressor.compress(data) + compressor.flush()


SKIPPABLE = (0x184D2A53).to_bytes(4, "little") + (5).to_bytes(4, "little") + b"notes"
ENCODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "zstd": ("zstd", zstd),
    "zstd with checksum": ("zstd", lambda data: zstd(data, checksum=True)),
    "zstd without size": ("ZSTD ", lambda data: zstd(data, size=False)),
    "zstd streamed": ("zstd", zstd_streamed),
    "zstd after notes": ("zstd", lambda data: SKIPPABLE + zstd(data) + SKIPPABLE),
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", lambda data: gzip.compress(data, 1)),
    "gzip, padded": ("gzip", lambda data: gzip.compress(data) + bytes(700)),
}
both = pytest.mark.parametrize(("encoding", "encode"), ENCODERS.values(), ids=ENCODERS.keys())


def decode(encoding: str | None, body: bytes, step: int = 1 << 30) -> bytes:
    sink = Collector()
    decoder = decoder_for(encoding, sink)
    for start in range(0, len(body), step):
        decoder.write(memoryview(body)[start : start + step])
    decoder.close()
    return sink.data


@both
@pytest.mark.parametrize("step", [1 << 30, 65536, 1000])
def test_a_body_is_decoded_however_it_is_cut(
    encoding: str, encode: Callable[[bytes], bytes], step: int
) -> None:
    assert decode(encoding, encode(DATA), step) == DATA


@both
def test_small_bodies_are_decoded_byte_by_byte(
    encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    for data in (b"", b"a", b"a" * 300, random.Random(2).randbytes(300), b"abc" * 30000):
        assert decode(encoding, encode(data), 1) == data


@both
@pytest.mark.parametrize("step", [1 << 30, 1000, 7])
def test_several_frames_in_a_row_are_one_body(
    encoding: str, encode: Callable[[bytes], bytes], step: int
) -> None:
    parts = [b"first", b"", DATA[:100_000], b"last"]
    assert decode(encoding, b"".join(map(encode, parts)), step) == b"".join(parts)


@both
def test_a_body_cut_short_is_a_protocol_error(
    encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    body = encode(b"abc" * 1000)
    core = body.rstrip(b"\0") if encoding == "gzip" else body
    # A stream that ends with a frame is whole, notes being frames as well.
    whole = {len(SKIPPABLE), len(body) - len(SKIPPABLE)} if SKIPPABLE in body else set()
    for cut in [n for n in range(len(core)) if n not in whole]:
        with pytest.raises(ProtocolError):
            decode(encoding, body[:cut], 50)
        if cut:
            with pytest.raises(ProtocolError):
                decode(encoding, body + body[:cut], 50)


@pytest.mark.parametrize("encoding", ["zstd", "gzip"])
@pytest.mark.parametrize("garbage", [b"garbage that is no frame", bytes(range(1, 100))])
def test_garbage_is_a_protocol_error(encoding: str, garbage: bytes) -> None:
    good = {"zstd": zstd, "gzip": gzip.compress}[encoding](b"abc")
    damaged = good[:-6] + bytes([good[-6] ^ 255]) + good[-5:]
    for body in (garbage, good + garbage, damaged if encoding == "gzip" else garbage):
        with pytest.raises(ProtocolError):
            decode(encoding, body)


def test_a_damaged_checksum_is_a_protocol_error() -> None:
    for encoding, body in (("zstd", zstd(b"abc", checksum=True)), ("gzip", gzip.compress(b"abc"))):
        place = -1 if encoding == "zstd" else -5
        damaged = bytearray(body)
        damaged[place] ^= 1
        with pytest.raises(ProtocolError):
            decode(encoding, bytes(damaged))


class Full(Exception):
    pass


class Bounded:
    """Takes a megabyte, then refuses."""

    def __init__(self) -> None:
        self.total = 0
        self.largest = 0

    def write(self, data: bytes | memoryview) -> None:
        self.total += len(data)
        self.largest = max(self.largest, len(data))
        if self.total > 1_000_000:
            raise Full


def gzip_bomb() -> bytes:
    compressor = zlib.compressobj(9, wbits=31)
    return b"".join(compressor.compress(bytes(1 << 20)) for _ in range(256)) + compressor.flush()


@pytest.mark.parametrize(
    ("encoding", "bomb"), [("zstd", zstd(bytes(1 << 28))), ("gzip", gzip_bomb())]
)
def test_a_sink_that_refuses_bounds_a_bomb(encoding: str, bomb: bytes) -> None:
    sink = Bounded()
    with pytest.raises(Full):
        decoder_for(encoding, sink).write(bomb)
    assert sink.total < 1_500_000
    assert sink.largest < 300_000


@pytest.mark.parametrize("encoding", [None, "", "identity", "Identity"])
def test_no_encoding_passes_the_bytes_on(encoding: str | None) -> None:
    assert decode(encoding, DATA, 1000) == DATA
    assert decode(encoding, b"") == b""


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, zstd", "zstd2"])
def test_an_unknown_encoding_is_a_protocol_error(encoding: str) -> None:
    with pytest.raises(ProtocolError, match="unknown content encoding"):
        decoder_for(encoding, Collector())


def test_file_suffixes_name_their_encoding() -> None:
    assert ENCODING_BY_SUFFIX == {".zst": "zstd", ".gz": "gzip"}


@settings(deadline=None, max_examples=200)
@given(
    parts=st.lists(st.binary(max_size=3000) | st.integers(0, 300_000).map(bytes), min_size=1),
    step=st.integers(1, 5000),
    level=st.integers(1, 19),
    checksum=st.booleans(),
    size=st.booleans(),
)
def test_any_frames_are_followed_to_their_end(
    parts: list[bytes], step: int, level: int, checksum: bool, size: bool
) -> None:
    compressor = zstandard.ZstdCompressor(level, write_checksum=checksum, write_content_size=size)
    body = b"".join(compressor.compress(part) for part in parts)
    assert decode("zstd", body, step) == b"".join(parts)
    with pytest.raises(ProtocolError):
        decode("zstd", body[:-1], step)


@pytest.mark.parametrize(
    ("encoding", "start", "more"),
    [
        ("gzip", gzip.compress(b"x"), bytes(65536)),
        ("gzip", b"", gzip.compress(b"") * 3000),
        ("zstd", zstd(b"x"), zstd(b"") * 7000),
        ("zstd", b"", SKIPPABLE * 5000),
    ],
    ids=["zeros", "empty members", "empty frames", "skippable frames"],
)
def test_a_body_that_holds_nothing_does_not_go_on_for_ever(
    encoding: str, start: bytes, more: bytes
) -> None:
    endless = start + more * 40
    with pytest.raises(ProtocolError, match=r"compressed bytes hold [01] bytes"):
        decode(encoding, endless, step=len(more))


@pytest.mark.parametrize("encode", [gzip.compress, zstd])
def test_very_many_tiny_members_are_read_whole(encode: Callable[[bytes], bytes]) -> None:
    pieces = [bytes([number % 256]) for number in range(20_000)]
    encoding = "zstd" if encode is zstd else "gzip"
    assert decode(encoding, b"".join(map(encode, pieces))) == b"".join(pieces)
