"""Where zstd frames begin and end (RFC 8878, 3.1), found without decompressing them."""

from __future__ import annotations

from collections.abc import Generator

from seamless_remote.errors import ProtocolError

_MAGIC = 0xFD2FB528
_SKIPPABLE = 0x184D2A5
_RLE_BLOCK = 1
_DICTIONARY_ID_SIZES = (0, 1, 2, 4)
_CONTENT_SIZE_SIZES = (0, 2, 4, 8)

# What comes next in the stream: a number of so many bytes (True), or bytes to pass over (False).
_Step = tuple[bool, int]


class FrameTracker:
    """Follows a stream of frames that is decompressed, and checked, elsewhere."""

    def __init__(self) -> None:
        self._frames_ended = 0
        self._in_frame = False
        self._field = b""
        self._steps = self._follow()
        self._is_field, self._left = next(self._steps)

    @property
    def at_end(self) -> bool:
        """Whether the stream so far is one or more whole frames."""
        return self._frames_ended > 0 and not self._in_frame and not self._field

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the stream; ProtocolError where no frame begins but one should."""
        position = 0
        while position < len(data):
            piece = data[position : position + self._left]
            position += len(piece)
            self._left -= len(piece)
            if self._is_field:
                self._field += piece
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
                raise ProtocolError("the body is not valid zstd: no frame begins where one should")
            self._frames_ended += 1

    @staticmethod
    def _frame() -> Generator[_Step, int, None]:
        descriptor = yield True, 1
        single_segment = bool(descriptor & 0x20)
        content_size = _CONTENT_SIZE_SIZES[descriptor >> 6]
        if single_segment and content_size == 0:
            content_size = 1
        yield False, (not single_segment) + _DICTIONARY_ID_SIZES[descriptor & 3] + content_size
        last = 0
        while not last:
            block = yield True, 3
            last = block & 1
            yield False, 1 if (block >> 1) & 3 == _RLE_BLOCK else block >> 3
        if descriptor & 0x04:
            yield False, 4
