"""The uploads of this process that are under way, for those who have to wait for one."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..nursery.calls import Call
from ..nursery.waiter import turns_within
from ..transport.messages import Request

logger = logging.getLogger(__name__)

STUCK_AFTER = 1.0
"""Seconds in which a loop with an upload has to turn, or the upload is taken for stuck."""


class Uploads:
    """Uploads by checksum. For tasks of any loop."""

    def __init__(self) -> None:
        self._uploads: dict[str, tuple[Request, weakref.ref[Any]]] = {}

    @contextmanager
    def under_way(self, call: Call, checksum: str, request: Request) -> Iterator[None]:
        """The block is an upload. Of several of one buffer, the first is the one that goes on."""
        upload = (request, weakref.ref(call.loop))
        self._uploads.setdefault(checksum, upload)
        try:
            yield
        finally:
            if self._uploads.get(checksum) is upload:
                del self._uploads[checksum]

    async def free_stuck(self, call: Call, checksum: str) -> None:
        """End the upload of a buffer by this process if its loop stands still.

        The server waits for such an upload to go on before it answers anybody else about that
        buffer. If the loop stands still because it waits for the caller of this, in synchronous
        code, it would wait for ever. An upload that was ended is tried again when its loop goes on.
        """
        upload = self._uploads.get(checksum)
        if upload is None:
            return
        request, loop = upload[0], upload[1]()
        if loop is call.loop or (loop is not None and await turns_within(loop, STUCK_AFTER)):
            return
        if request.abort is not None:
            logger.info("the upload of %s is stuck with its event loop; it is ended", checksum)
            request.abort()
