"""The two packages that bear the name `seamless_remote`: ours and the published one.

Which of them it is depends on the environment; both have the same face.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from peer import Peer
from seamless import Buffer, Checksum
from task import Task, result_of

import seamless_remote
from seamless_remote import buffer_remote, database_remote, jobserver_remote


class SeamlessPeer(Peer):
    """Called from an asyncio loop in which no nursery was opened, as the published one is."""

    def connect(self, task: Task) -> None:
        if "database" in task:
            url = task["database"]
            database_remote.define_extern_client("bench", "database", url=url, readonly=False)
            database_remote.activate(no_main=True, extern_clients=["bench"])
        if "jobserver" in task:
            jobserver_remote.define_extern_client("bench", "jobserver", url=task["jobserver"])
            jobserver_remote.activate(no_main=True, extern_clients=["bench"])
        names = []
        for number, url in enumerate(task.get("servers", [])):
            names.append(f"server-{number}")
            buffer_remote.define_extern_client(names[-1], "hashserver", url=url, readonly=False)
        if "folder" in task:
            names.append("folder")
            buffer_remote.define_extern_client("folder", "bufferfolder", directory=task["folder"])
        if names:
            buffer_remote.activate(no_main=True, extern_clients=names)

    async def lookup(self, key: str) -> str:
        result = await database_remote.get_transformation_result(Checksum(key))
        return "" if result is None else result.hex()

    async def record(self, key: str) -> None:
        await database_remote.set_transformation_result(Checksum(key), Checksum(result_of(key)))

    async def run_job(self, key: str) -> str:
        """The result of the job with this checksum; raises what the package raises."""
        answer = await jobserver_remote.run_transformation(
            {}, tf_checksum=Checksum(key), tf_dunder={}, scratch=False
        )
        result: str = Checksum(answer["result_checksum"]).hex()
        return result

    async def get(self, checksum: str) -> bytes:
        """A buffer's content; empty where it is not there."""
        buffer = await buffer_remote.get_buffer(Checksum(checksum))
        return b"" if buffer is None else buffer.content

    async def put(self, checksum: str, content: bytes) -> bool:
        """Store a buffer; True where that is confirmed."""
        # Who writes a buffer knows its checksum: Seamless gives it to both packages like this.
        buffer = Buffer(content, checksum=Checksum(checksum))
        return bool(await buffer_remote.write_buffer(buffer.checksum, buffer))

    def resolve(self, checksum: str) -> bytes:
        """A buffer's content, for a synchronous caller."""
        content: bytes = Checksum(checksum).resolve().content
        return content


class AsyncioHostPeer(SeamlessPeer):
    """Ours, with the nursery opened in the caller's asyncio loop."""

    def run(self, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return super().run(functools.partial(_in_nursery, main))


class TrioHostPeer(SeamlessPeer):
    """Ours, with the nursery opened in a trio program."""

    def run(self, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        import trio

        return trio.run(_in_nursery, main)

    async def gather(self, function: Callable[[Any], Awaitable[Any]], items: Sequence[Any]) -> Any:
        import trio

        results = dict.fromkeys(range(len(items)))

        async def fill(position: int, item: Any) -> None:
            results[position] = await function(item)

        async with trio.open_nursery() as nursery:
            for position, item in enumerate(items):
                nursery.start_soon(fill, position, item)
        return list(results.values())

    async def sleep(self, seconds: float) -> None:
        import trio

        await trio.sleep(seconds)


async def _in_nursery(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async with seamless_remote.open_nursery():
        return await main()
