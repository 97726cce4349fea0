"""Decoding of content codings, as bytes come: push compressed bytes in, a sink gets the others.

Output goes to the sink in pieces of bounded size, so that a sink that counts and raises bounds what
a small answer can blow up to. Errors raised by the sink pass through. Synchronous.
"""

from __future__ import annotations

import zlib
from typing import Any, Protocol

from seamless_remote.errors import ProtocolError

from .zstd_frames import FrameTracker

_PIECE = 262144

suffix_encoding = {".zst": "zstd", ".gz": "gzip"}
"""The content coding of a file, by the end of its name."""


class Sink(Protocol):
    """Takes decoded bytes; the memory it is given is valid during the call only."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Take the next bytes."""
        ...


class Decoder(Protocol):
    """Decodes one body."""

    def write(self, data: bytes | memoryview, /) -> None:
        """Take the next bytes of the body; ProtocolError if they are malformed."""
        ...

    def close(self) -> None:
        """End the body; ProtocolError if it is cut short."""
        ...


def decoder_for(encoding: str | None, sink: Sink) -> Decoder:
    """A decoder of a `Content-Encoding` to `sink`: zstd, gzip (x-gzip), identity or None.

    Raises ProtocolError for another one.
    """
    name = (encoding or "identity").strip().lower()
    if name in ("identity", ""):
        return _Identity(sink)
    if name == "zstd":
        return _Zstandard(sink)
    if name in ("gzip", "x-gzip"):
        return _Gzip(sink)
    raise ProtocolError(f"the body has an unknown content encoding: {encoding!r}")


class _Identity:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, data: bytes | memoryview, /) -> None:
        self._sink.write(data)

    def close(self) -> None:
        pass


class _Zstandard:
    """Frames one after another (RFC 8878, 3), decompressed by libzstd in pieces of 128 KiB.

    libzstd's streaming writer does not tell whether it stands between two frames, and the object
    that does gives its output in one piece of any size: so the frames are followed here as well.
    """

    def __init__(self, sink: Sink) -> None:
        import zstandard

        target: Any = sink
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
            raise ProtocolError("the body's zstd stream is cut short")


class _Gzip:
    """Members one after another (RFC 1952, 2.2)."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._member = zlib.decompressobj(wbits=31)
        self._begun = False
        self._ended = False

    def write(self, data: bytes | memoryview, /) -> None:
        rest: bytes | memoryview = data
        while len(rest):
            if self._ended:
                # Tape-minded writers pad with zeros after the last member.
                rest = bytes(rest).lstrip(b"\0")
                if not rest:
                    return
                self._member = zlib.decompressobj(wbits=31)
                self._ended = False
            rest = self._decompress(rest)

    def _decompress(self, data: bytes | memoryview) -> bytes:
        member = self._member
        self._begun = True
        try:
            while True:
                piece = member.decompress(data, _PIECE)
                if piece:
                    self._sink.write(piece)
                data = member.unconsumed_tail
                if member.eof or (not data and len(piece) < _PIECE):
                    break
        except zlib.error as exc:
            raise ProtocolError(f"the body is not valid gzip: {exc}") from None
        self._ended = member.eof
        return member.unused_data

    def close(self) -> None:
        if not (self._begun and self._ended):
            raise ProtocolError("the body's gzip stream is cut short")
