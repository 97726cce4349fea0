"""A path to a service far away: each byte travels for a while, and a connection carries one window
a round trip, as a channel of ssh does.

    python far_path.py --host 127.0.0.1 --port 22600 --to 127.0.0.1:8000 --delay 0.04
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import suppress

_PIECE = 65536


async def _carry(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay: float, window: int
) -> None:
    """Pass bytes on, each after `delay` seconds; `window` of them may be unconfirmed."""
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    room = window
    more_room = asyncio.Event()

    def confirmed(count: int) -> None:
        nonlocal room
        room += count
        more_room.set()

    async def arrive() -> None:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                with suppress(OSError):
                    sink.write_eof()
                return
            sink.write(data)
            await sink.drain()
            # The sender learns of it half a round trip later.
            loop.call_later(delay, confirmed, len(data))

    arrival = asyncio.ensure_future(arrive())
    try:
        data = b"begin"
        while data:
            while room <= 0:
                more_room.clear()
                await more_room.wait()
            data = await source.read(min(_PIECE, room))
            room -= len(data)
            under_way.put_nowait((loop.time() + delay, data))
        await arrival
    finally:
        arrival.cancel()


async def _serve(options: argparse.Namespace) -> None:
    host, _, port = options.to.rpartition(":")

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await asyncio.sleep(2 * options.delay)  # a connection takes a round trip
            there, back = await asyncio.open_connection(host, int(port))
            pace = (options.delay, options.window)
            await asyncio.gather(_carry(reader, back, *pace), _carry(there, writer, *pace))
            back.close()
        writer.close()

    async with await asyncio.start_server(connect, "", options.port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", help="it listens at all addresses of the machine")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--to", required=True)
    parser.add_argument("--delay", type=float, required=True, help="seconds, one way")
    parser.add_argument("--window", type=int, default=2 << 20, help="bytes")
    asyncio.run(_serve(parser.parse_args()))
