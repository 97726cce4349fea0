"""Push decoders for HTTP content codings: write encoded bytes, and decoded bytes reach a sink.

The sink gets pieces of bounded size. A sink that counts bytes and raises therefore stops a
decompression bomb early. Errors raised by the sink pass through unchanged. Synchronous, no I/O.
"""

from __future__ import annotations

import zlib
from typing import Any, Protocol

from ..errors import ProtocolError
from .zstd_frames import FrameTracker

_PIECE_BYTES = 256 * 1024
_INPUT_BYTES = 16 * 1024
"""zlib copies what it leaves of its input: at the end of each member, and of each piece."""

_EMPTY_BYTES = 1024 * 1024
_MOST_OVERHEAD = 64
"""A member or frame of one byte takes some twenty; those that hold nothing may go on for ever."""
_GZIP_WBITS = 31  # for zlib: expect a gzip header and trailer, and allow the largest window

ENCODING_BY_SUFFIX = {".zst": "zstd", ".gz": "gzip"}
"""The content coding of a stored file, by its suffix."""


class Sink(Protocol):
    """Receives decoded bytes."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Receive the next bytes. `data` is only valid during the call: copy what must stay."""
        ...


class Decoder(Protocol):
    """Decodes one body and passes the result to its sink."""

    def write(self, data: bytes | memoryview, /) -> None:
        """Decode the next bytes of the body. ProtocolError if they are malformed."""
        ...

    def close(self) -> None:
        """End the body. ProtocolError if it is truncated."""
        ...


def decoder_for(encoding: str | None, sink: Sink) -> Decoder:
    """A decoder for a `Content-Encoding` value: zstd, gzip, x-gzip, identity, empty or None.

    ProtocolError for any other value, including a list of codings; from the decoder, also for a
    body that goes on and on and holds nothing.
    """
    name = (encoding or "identity").strip().lower()
    if name in ("identity", ""):
        return _Identity(sink)
    if name == "zstd":
        counted = _Counted(sink)
        return _Bounded(_Zstandard(counted), counted)
    if name in ("gzip", "x-gzip"):
        counted = _Counted(sink)
        return _Bounded(_Gzip(counted), counted)
    raise ProtocolError(f"the body has an unknown content encoding: {encoding!r}")


class _Identity:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, data: bytes | memoryview, /) -> None:
        self._sink.write(data)

    def close(self) -> None:
        pass


class _Counted:
    """A sink that counts what it passes on."""

    def __init__(self, sink: Sink) -> None:
        self.length = 0
        self._sink = sink

    def write(self, data: bytes | memoryview, /) -> None:
        self.length += len(data)
        self._sink.write(data)


class _Bounded:
    """A decoder that ends a body of which little or nothing comes out."""

    def __init__(self, decoder: Decoder, decoded: _Counted) -> None:
        self._decoder = decoder
        self._decoded = decoded
        self._length = 0

    def write(self, data: bytes | memoryview, /) -> None:
        view = memoryview(data)
        for start in range(0, len(view), _INPUT_BYTES):
            piece = view[start : start + _INPUT_BYTES]
            self._decoder.write(piece)
            self._length += len(piece)
            if self._length > _EMPTY_BYTES + _MOST_OVERHEAD * self._decoded.length:
                raise ProtocolError(
                    f"{self._length} compressed bytes hold {self._decoded.length} bytes"
                )

    def close(self) -> None:
        self._decoder.close()


class _Zstandard:
    """A sequence of zstd frames (RFC 8878, section 3). libzstd writes pieces of 128 KiB.

    A truncated body must be detected, but the `stream_writer` of the zstandard package does not
    tell whether the last frame is complete. Its `decompressobj` does, but returns the output in one
    piece of unbounded size. So a FrameTracker follows the frames alongside the stream writer.
    """

    def __init__(self, sink: Sink) -> None:
        import zstandard

        target: Any = sink  # zstandard's stubs ask for an IO[bytes]
        self._writer = zstandard.ZstdDecompressor().stream_writer(target, closefd=False)
        self._error = zstandard.ZstdError
        self._frames = FrameTracker()

    def write(self, data: bytes | memoryview, /) -> None:
        try:
            self._writer.write(data)
        except self._error as exc:
            raise ProtocolError(f"the body is not valid zstd: {exc}") from None
        self._frames.write(data)

    def close(self) -> None:
        if not self._frames.at_end:
            raise ProtocolError("the zstd body is truncated")


class _Gzip:
    """A sequence of gzip members (RFC 1952, section 2.2)."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._member = zlib.decompressobj(_GZIP_WBITS)
        self._begun = False
        self._ended = False

    def write(self, data: bytes | memoryview, /) -> None:
        rest: bytes | memoryview = data
        while len(rest):
            if self._ended:
                # Zeros may follow the last member: tape writers pad with them. gzip skips them too.
                rest = bytes(rest).lstrip(b"\0")
                if not rest:
                    return
                self._member = zlib.decompressobj(_GZIP_WBITS)
                self._ended = False
            rest = self._decompress(rest)

    def _decompress(self, data: bytes | memoryview) -> bytes:
        """Decompress the current member; returns the bytes after its end."""
        member = self._member
        self._begun = True
        try:
            while True:
                piece = member.decompress(data, _PIECE_BYTES)
                if piece:
                    self._sink.write(piece)
                data = member.unconsumed_tail
                # A full piece may leave output inside zlib even if no input is left.
                if member.eof or (not data and len(piece) < _PIECE_BYTES):
                    break
        except zlib.error as exc:
            raise ProtocolError(f"the body is not valid gzip: {exc}") from None
        self._ended = member.eof
        return member.unused_data

    def close(self) -> None:
        if not (self._begun and self._ended):
            raise ProtocolError("the gzip body is truncated")
