"""Waiting for a socket before it belongs to a connection: while it connects and shakes hands.

anyio's waits and cancel scopes keep an asyncio loop that is closed during one alive for ever, with
the waiting task and its sockets: anyio's tables have it as a key, and refer to it in the value.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import anyio

from ..nursery.event_loops import is_asyncio, running_loop

Source = socket.socket | int


async def readable(source: Source, patience: float | None = None) -> bool:
    """Wait until there is something to read, or the other side has gone, or there is an error.

    False: `patience` seconds have passed before that.
    """
    loop = running_loop()
    if is_asyncio(loop):
        return await _wait(loop, source, loop.add_reader, loop.remove_reader, patience)
    with anyio.move_on_after(patience):
        await anyio.wait_readable(source)
        return True
    return False


async def writable(source: Source) -> bool:
    """Wait until the kernel takes bytes to send, or there is an error. True."""
    loop = running_loop()
    if is_asyncio(loop):
        return await _wait(loop, source, loop.add_writer, loop.remove_writer, None)
    await anyio.wait_writable(source)
    return True


async def _wait(
    loop: asyncio.AbstractEventLoop, source: Source, add: Any, remove: Any, patience: float | None
) -> bool:
    future: asyncio.Future[bool] = loop.create_future()

    def end(ready: bool) -> None:
        # The loop calls this at each turn until the source is removed.
        if not future.done():
            future.set_result(ready)

    add(source, end, True)
    timer = None if patience is None else loop.call_later(patience, end, False)
    try:
        return await future
    finally:
        if timer is not None:
            timer.cancel()
        if not loop.is_closed():
            remove(source)
