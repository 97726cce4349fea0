"""SHA-256 of much, away from the event loop and beside what fetches it."""

from __future__ import annotations

import hashlib
import queue
import threading

from .nursery.offload import offload_large


async def checksum_of(content: bytes | memoryview) -> str:
    """The checksum of bytes, in hex; of many, it is calculated in a worker thread."""
    return await offload_large(len(content), lambda: hashlib.sha256(content).hexdigest())


class HashingThread:
    """Hashes pieces in the order in which they come, while the giver's thread goes on.

    A context manager: the thread lives as long as the block. At most two pieces wait for it.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._pieces: queue.Queue[bytes] = queue.Queue(2)
        self._thread = threading.Thread(target=self._run, name="seamless-remote-hashing")

    def __enter__(self) -> HashingThread:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._pieces.put(b"")
        self._thread.join()

    def update(self, piece: bytes) -> None:
        """Give it the next piece, which is not empty."""
        self._pieces.put(piece)

    def checksum(self) -> str:
        """The checksum of all pieces, in hex; after the block."""
        return self._hash.hexdigest()

    def _run(self) -> None:
        while piece := self._pieces.get():
            self._hash.update(piece)
