"""SHA-256 of much, away from the event loop."""

from __future__ import annotations

import hashlib

from ..nursery.worker_threads import offload_large


async def checksum_of(content: bytes | memoryview) -> str:
    """The checksum of bytes, in hex; of many, it is calculated in a worker thread."""
    return await offload_large(len(content), lambda: hashlib.sha256(content).hexdigest())
