"""A buffer in memory, received right where it stays."""

from __future__ import annotations

import io


class Memory:
    """A target in memory, which gives its bytes away uncopied."""

    def __init__(self) -> None:
        self._file = io.BytesIO()
        self._place: memoryview | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Take bytes of a buffer for which no place was made."""
        self._file.write(data)

    def place(self, length: int) -> memoryview | None:
        """Make a place for all the `length` bytes of the buffer, to be filled instead of `write`.

        Of fresh zeros the kernel only makes memory as they are overwritten: a length that is a lie
        takes none. None where it refuses even so; then the bytes are to be written.
        """
        try:
            # BytesIO does not copy bytes that nobody else has.
            self._file = io.BytesIO(bytes(length))
        except (MemoryError, OverflowError):
            return None
        self._place = self._file.getbuffer()
        return self._place

    def restart(self) -> None:
        """Forget all bytes so far, and the place."""
        self._leave()
        self._file = io.BytesIO()

    def content(self) -> bytes:
        """The buffer; the place is not to be used any more."""
        self._leave()
        return self._file.getvalue()

    def _leave(self) -> None:
        # While somebody could still write there, BytesIO would give a copy.
        if self._place is not None:
            self._place.release()
            self._place = None
