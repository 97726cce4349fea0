"""What the look-ups ask of a peer; `SeamlessPeer` has buffers as well."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from task import Task


class Peer:
    """A client of the services, on asyncio where it does not say otherwise."""

    def connect(self, task: Task) -> None:
        """Make the services that the task names known; in the loop, where one is used."""
        raise NotImplementedError

    def run(self, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run `main` in a new event loop."""
        return asyncio.run(main())

    async def gather(self, function: Callable[[Any], Awaitable[Any]], items: Sequence[Any]) -> Any:
        """The results of `function` for all items at once, in order."""
        return await asyncio.gather(*[function(item) for item in items])

    async def sleep(self, seconds: float) -> None:
        """Sleep in the peer's kind of loop."""
        await asyncio.sleep(seconds)

    async def lookup(self, key: str) -> str:
        """The result of a transformation."""
        raise NotImplementedError

    async def record(self, key: str) -> None:
        """Store the result of a transformation."""
        raise NotImplementedError
