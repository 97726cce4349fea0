"""SHA-256 that does not block the event loop."""

from __future__ import annotations

import hashlib

from .worker_threads import offload_large


async def checksum_of(content: bytes | memoryview) -> str:
    """The SHA-256 of `content` as hex digits. Large content is hashed in a worker thread."""
    return await offload_large(len(content), lambda: hashlib.sha256(content).hexdigest())
