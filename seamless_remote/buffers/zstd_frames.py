"""Finds the ends of zstd frames (RFC 8878, section 3.1) without decompressing them."""

from __future__ import annotations

from collections.abc import Generator

from ..errors import ProtocolError

_MAGIC = 0xFD2FB528
_SKIPPABLE = 0x184D2A5
_RLE_BLOCK = 1
# Sizes in bytes of two fields of the frame header, by the flags that select them.
_DICTIONARY_ID_SIZES = (0, 1, 2, 4)
_CONTENT_SIZE_SIZES = (0, 2, 4, 8)

# The next part of the stream: whether to read it as a little-endian number, and its size in bytes.
_Step = tuple[bool, int]


class FrameTracker:
    """Tracks frame boundaries in a stream; the decompressor checks the content of the frames."""

    def __init__(self) -> None:
        self._frames_ended = 0
        self._in_frame = False
        self._field = b""
        # A generator states the format in the order of the stream, and keeps the position in it.
        self._steps = self._follow()
        self._is_field, self._left = next(self._steps)

    @property
    def at_end(self) -> bool:
        """Whether the stream so far consists of one or more complete frames."""
        return self._frames_ended > 0 and not self._in_frame and not self._field

    def write(self, data: bytes | memoryview) -> None:
        """Follow the next bytes of the stream. ProtocolError if garbage follows a frame."""
        position = 0
        while position < len(data):
            piece = data[position : position + self._left]
            position += len(piece)
            self._left -= len(piece)
            if self._is_field:
                self._field += piece
            # A loop, because a part may be empty: a skippable frame or a block of 0 bytes.
            while self._left == 0:
                value = int.from_bytes(self._field, "little")
                self._field = b""
                self._is_field, self._left = self._steps.send(value)

    def _follow(self) -> Generator[_Step, int, None]:
        while True:
            self._in_frame = False
            magic = yield True, 4
            self._in_frame = True
            if magic >> 4 == _SKIPPABLE:
                size = yield True, 4
                yield False, size
            elif magic == _MAGIC:
                yield from self._frame()
            else:
                raise ProtocolError(
                    f"the body is not valid zstd: no frame begins with {magic:#010x}"
                )
            self._frames_ended += 1

    @staticmethod
    def _frame() -> Generator[_Step, int, None]:
        descriptor = yield True, 1
        single_segment = bool(descriptor & 0x20)
        content_size = _CONTENT_SIZE_SIZES[descriptor >> 6]
        if single_segment and content_size == 0:
            content_size = 1
        # The window descriptor (1 byte) is absent from a single-segment frame.
        yield False, (not single_segment) + _DICTIONARY_ID_SIZES[descriptor & 3] + content_size
        last = 0
        while not last:
            block = yield True, 3
            last = block & 1
            # An RLE block holds one byte; its size field counts the repetitions.
            yield False, 1 if (block >> 1) & 3 == _RLE_BLOCK else block >> 3
        if descriptor & 0x04:
            yield False, 4  # the content checksum
