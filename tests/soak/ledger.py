"""The ledger: every write that a service has confirmed, to be looked for at the end.

It is a file, so that the soak's own memory does not grow with it, and a check by another process
needs nothing else. Its lines:

    buffer CHECKSUM LENGTH
    result TRANSFORMATION RESULT          the only result that was ever set
    results TRANSFORMATION RESULT ...     any of these; `-` stands for none
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path

REMEMBERED = 3000
"""So many of the latest buffers and results are at hand, to be read again."""

NOTHING = "-"


class Ledger:
    """Notes what was confirmed. From any thread."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", buffering=1)
        self._lock = threading.Lock()
        self._buffers: deque[tuple[str, int]] = deque(maxlen=REMEMBERED)
        self._results: deque[tuple[str, str]] = deque(maxlen=REMEMBERED)

    def buffer(self, checksum: str, length: int) -> None:
        self._note("buffer", checksum, str(length))
        self._buffers.append((checksum, length))

    def result(self, transformation: str, result: str) -> None:
        self._note("result", transformation, result)
        self._results.append((transformation, result))

    def results(self, transformation: str, possible: Iterable[str | None]) -> None:
        self._note("results", transformation, *(each or NOTHING for each in possible))

    def some_buffer(self, draw: random.Random) -> tuple[str, int] | None:
        """The checksum and length of a buffer that is stored; None where none is yet."""
        return draw.choice(self._buffers) if self._buffers else None

    def some_result(self, draw: random.Random) -> tuple[str, str] | None:
        """A transformation and its result; None where there is none yet."""
        return draw.choice(self._results) if self._results else None

    def close(self) -> None:
        self._file.close()

    def _note(self, *words: str) -> None:
        with self._lock:
            self._file.write(" ".join(words) + "\n")
