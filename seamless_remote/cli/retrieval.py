"""Retrieves buffers: opens a remote nursery, activates the clients and copies the buffers."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO

from ..errors import RemoteError
from .arguments import Arguments
from .checksum_argument import Wanted
from .destination import Destination
from .interruption import Interruption
from .progress import DELAY_SECONDS, Progress, wants_progress
from .statuses import Failure, Status

logger = logging.getLogger(__name__)

PIECE_BYTES = 64 * 1024
"""Bytes to write to a file at once. For larger writes Linux looks for large free pages, which can
take several times as long as the writing itself."""

WIDTH = 8
"""How many buffers are fetched at once, for files."""

Recovery = Callable[[str], Awaitable[bytes]]
"""Produces a buffer that no source has, given its checksum. Failure if it cannot."""


@dataclass(slots=True)
class Item:
    """A buffer to be retrieved, where it goes, and the error that came in between."""

    wanted: Wanted
    destination: Destination
    error: Exception | None = None


class OutputWriter:
    """The target of the clients' copy: writes to the destination's file and counts the bytes."""

    def __init__(self, destination: Destination, progress: Progress) -> None:
        self._destination = destination
        self._progress = progress
        self._count = 0
        self._file: IO[bytes] = destination.open()

    def write(self, data: bytes | memoryview) -> None:
        """Write more bytes. Failure if that is impossible, as on a full disk."""
        view = memoryview(data)
        try:
            for start in range(0, len(view), PIECE_BYTES):
                self._file.write(view[start : start + PIECE_BYTES])
        except OSError as exc:
            raise self._destination.collecting_failure(exc) from exc
        self._count += len(data)
        self._progress.advance(len(data))

    def restart(self) -> None:
        """Drop all bytes written so far."""
        try:
            self._file.seek(0)
            self._file.truncate()
        except OSError as exc:
            raise self._destination.collecting_failure(exc) from exc
        self._progress.advance(-self._count)
        self._count = 0


def retrieve(
    items: Sequence[Item],
    arguments: Arguments,
    interruption: Interruption,
    recover: Recovery | None,
) -> None:
    """Deliver verified buffers to their destinations. Closes the nursery and Seamless at the end.

    What goes wrong with one buffer is noted in its item, and the others go on, unless the stream
    that they go to takes nothing any more.

    Raises:
        Failure: no services are configured, or the configuration is malformed.
        RemoteError: a service cannot be launched.
        Interrupted: a signal arrived.
    """
    retrieval = _Retrieval(items, recover)

    async def work() -> None:
        from .configuration import configure

        configure(arguments.project, arguments.stage, results=recover is not None)
        if wants_progress(arguments.quiet):
            await retrieval.run_with_bar()
        else:
            await retrieval.run()

    _run(work, interruption)
    if len(items) == 1:
        _deliver_last(items[0], interruption)


def _deliver_last(item: Item, interruption: Interruption) -> None:
    """Deliver the only buffer, now that no service has to wait for a reader of standard output."""
    if item.error is not None:
        return
    try:
        if item.destination.is_stream:
            item.destination.deliver()
        else:
            # A file that is written in place is not left half written.
            with interruption.deferred():
                item.destination.deliver()
    except Failure as exc:
        item.error = exc


class _Retrieval:
    """The retrieval of all items, in the loop of the nursery."""

    def __init__(self, items: Sequence[Item], recover: Recovery | None) -> None:
        self._items = items
        self._recover = recover
        self._to_come = iter(items)
        self._done = 0
        self._progress = Progress(self._title())

    async def run(self) -> None:
        """Retrieve each; several into files side by side."""
        import anyio

        # A recomputation has the process to itself.
        one_by_one = self._items[0].destination.is_stream or self._recover is not None
        async with anyio.create_task_group() as task_group:
            for _ in range(1 if one_by_one else min(WIDTH, len(self._items))):
                task_group.start_soon(self._work)

    async def run_with_bar(self) -> None:
        """Retrieve as `run` does, and show a progress bar."""
        import anyio

        try:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(self._show_progress)
                await self.run()
                task_group.cancel_scope.cancel()
        finally:
            self._progress.close()

    async def _work(self) -> None:
        while (item := next(self._to_come, None)) is not None:
            try:
                await self._retrieve(item)
            except Exception as exc:
                item.error = exc
            if len(self._items) > 1:
                item.destination.discard()
            self._done += 1
            self._progress.rename(self._title())

    async def _retrieve(self, item: Item) -> None:
        import anyio
        import anyio.to_thread

        writer = OutputWriter(item.destination, self._progress)
        await self._fetch(item.wanted.checksum, writer)
        if len(self._items) == 1:
            return  # delivered in the end
        is_stream = item.destination.is_stream
        try:
            # A file that is written in place is not left half written.
            with anyio.CancelScope(shield=not is_stream):
                await anyio.to_thread.run_sync(item.destination.deliver)
        except Failure as exc:
            if is_stream and exc.status is not Status.BINARY_TO_TERMINAL:
                self._to_come = iter(())
            raise

    async def _fetch(self, checksum: str, writer: OutputWriter) -> None:
        """Write a buffer. Failure if no source has it, and it cannot be recovered."""
        import anyio.to_thread

        if await _copy(checksum, writer):
            return
        sources = _sources()
        logger.info("%s is not in %s", checksum, sources)
        if self._recover is None:
            raise Failure(
                Status.UNKNOWN_CHECKSUM,
                f"no source has a buffer with checksum {checksum} (tried: {sources}); "
                "seamless-fingertip may be able to recompute it",
            )
        content = await self._recover(checksum)
        writer.restart()
        await anyio.to_thread.run_sync(writer.write, content)

    def _title(self) -> str:
        if len(self._items) == 1:
            return self._items[0].wanted.checksum[:8]
        return f"{self._done} of {len(self._items)}"

    async def _show_progress(self) -> None:
        """Show the bar after a delay, with a total if that is cheap to find out."""
        import anyio

        await anyio.sleep(DELAY_SECONDS)
        self._progress.show()
        try:
            total = await _total(item.wanted.checksum for item in self._items)
        except (RemoteError, OSError) as exc:
            logger.debug("cannot find out how much there is to fetch: %s", exc)
            return
        if total:
            self._progress.expect(total)


async def _total(checksums: Iterable[str]) -> int:
    """How many bytes the buffers have together, as far as that is known."""
    from seamless import Checksum

    from .. import buffer_remote

    total = 0
    elsewhere = []
    for checksum in map(Checksum, checksums):
        name = await buffer_remote.get_filename(checksum)
        if name is None:
            elsewhere.append(checksum)
        else:
            total += os.stat(name).st_size
    # Not with folders: one that has a buffer compressed only would decompress it to count.
    if elsewhere and not any(client.folder for client in buffer_remote._read_folders_clients):
        lengths = await buffer_remote.get_buffer_lengths(elsewhere)
        total += sum(length for length in lengths if length is not None)
    return total


def _run(work: Callable[[], Awaitable[None]], interruption: Interruption) -> None:
    """Run `work` in a remote nursery in a new event loop, then close Seamless."""
    import asyncio

    import anyio
    import anyio.to_thread

    async def main() -> None:
        import seamless

        from .. import open_nursery

        loop = asyncio.get_running_loop()
        scope = anyio.CancelScope()
        with interruption.cancelling(lambda: loop.call_soon_threadsafe(scope.cancel)), scope:
            interruption.check()
            async with open_nursery():
                try:
                    await work()
                finally:
                    # In a worker thread: it blocks while the nursery in this loop sends the buffers
                    # that Seamless has not written yet.
                    with anyio.CancelScope(shield=True):
                        await anyio.to_thread.run_sync(seamless.close)

    anyio.run(main, backend="asyncio")
    interruption.check()


async def _copy(checksum: str, writer: OutputWriter) -> bool:
    """Copy the buffer from a source. False if none has it."""
    from seamless import Checksum
    from seamless.checksum.calculate_checksum import TRIVIAL_CHECKSUMS

    from .. import buffer_remote, database_remote
    from .configuration import require_home

    trivial = TRIVIAL_CHECKSUMS.get(checksum)
    if trivial is not None:
        # Seamless has the content of some short buffers built in, and does not store them.
        writer.write(trivial)
        return True

    def launch() -> None:
        if buffer_remote.launches():
            require_home()
        # Side by side: a buffer that no server has either is looked up in the database.
        buffer_remote.launch()
        database_remote.launch()

    wanted = Checksum(checksum)
    return await buffer_remote.copy_buffer(wanted, writer, writer.restart, before_servers=launch)


def _sources() -> str:
    """The folders and URLs of the buffer clients, for messages."""
    from .. import buffer_remote

    folders = [str(client.directory) for client in buffer_remote._read_folders_clients]
    servers = [str(client.url) for client in buffer_remote._read_server_clients]
    return ", ".join(dict.fromkeys([*folders, *servers])) or "nowhere"
