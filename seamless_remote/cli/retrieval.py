"""Retrieves the buffer: opens a remote nursery, activates the clients and copies the buffer."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from typing import IO

from .arguments import Arguments
from .destination import Destination
from .interruption import Interruption
from .progress import DELAY_SECONDS, Progress, wants_progress
from .statuses import Failure, Status

logger = logging.getLogger(__name__)

PIECE_BYTES = 64 * 1024
"""Bytes to write to a file at once. For larger writes Linux looks for large free pages, which can
take several times as long as the writing itself."""

Recovery = Callable[[str], Awaitable[bytes]]
"""Produces a buffer that no source has, given its checksum. Failure if it cannot."""


class OutputWriter:
    """The target of the clients' copy: writes to the destination's file and counts the bytes."""

    def __init__(self, destination: Destination, progress: Progress) -> None:
        self._destination = destination
        self.progress = progress
        self._file: IO[bytes] = destination.open()

    def write(self, data: bytes | memoryview) -> None:
        """Write more bytes. Failure if that is impossible, as on a full disk."""
        view = memoryview(data)
        try:
            for start in range(0, len(view), PIECE_BYTES):
                self._file.write(view[start : start + PIECE_BYTES])
        except OSError as exc:
            raise self._destination.failure(exc) from exc
        self.progress.advance(len(data))

    def restart(self) -> None:
        """Drop all bytes written so far."""
        try:
            self._file.seek(0)
            self._file.truncate()
        except OSError as exc:
            raise self._destination.failure(exc) from exc
        self.progress.restart()


def retrieve(
    checksum: str,
    destination: Destination,
    arguments: Arguments,
    interruption: Interruption,
    recover: Recovery | None,
) -> None:
    """Collect the verified buffer in `destination`. Closes the nursery and Seamless at the end.

    Raises:
        Failure: no source has the buffer, or it cannot be written.
        RemoteError: a service failed.
        Interrupted: a signal arrived.
    """
    progress = Progress(checksum[:8])
    writer = OutputWriter(destination, progress)
    copy = _copy_with_bar if wants_progress(arguments.quiet) else _copy

    async def work() -> None:
        from .configuration import configure

        configure(arguments.project, arguments.stage, results=recover is not None)
        if await copy(checksum, writer):
            return
        sources = _sources()
        logger.info("%s is not in %s", checksum, sources)
        if recover is None:
            raise Failure(
                Status.UNKNOWN_CHECKSUM,
                f"no source has a buffer with checksum {checksum} (tried: {sources}); "
                "seamless-fingertip may be able to recompute it",
            )
        await _store(await recover(checksum), writer)

    _run(work, interruption)


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

    from .. import buffer_remote

    trivial = TRIVIAL_CHECKSUMS.get(checksum)
    if trivial is not None:
        # Seamless has the content of some short buffers built in, and does not store them.
        writer.write(trivial)
        return True
    return await buffer_remote.copy_buffer(Checksum(checksum), writer, writer.restart)


async def _copy_with_bar(checksum: str, writer: OutputWriter) -> bool:
    """Copy the buffer as `_copy` does, and show a progress bar."""
    import anyio

    # Carried out of the task group, which would wrap it in an exception group.
    failure: Exception | None = None
    found = False
    try:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(_show_progress, checksum, writer.progress)
            try:
                found = await _copy(checksum, writer)
            except Exception as exc:
                failure = exc
            task_group.cancel_scope.cancel()
    finally:
        writer.progress.close()
    if failure is not None:
        raise failure
    return found


async def _show_progress(checksum: str, progress: Progress) -> None:
    """Show the bar after a delay, with a total if that is cheap to find out."""
    import anyio
    from seamless import Checksum

    from .. import RemoteError, buffer_remote

    await anyio.sleep(DELAY_SECONDS)
    progress.show()
    try:
        filename = await buffer_remote.get_filename(Checksum(checksum))
        if filename is not None:
            progress.expect(_size(filename))
        # Not with folders: one that has the buffer compressed only would decompress it to count.
        elif not any(client.folder for client in buffer_remote._read_folders_clients):
            (length,) = await buffer_remote.get_buffer_lengths([Checksum(checksum)])
            if length is not None:
                progress.expect(length)
    except (RemoteError, OSError) as exc:
        logger.debug("cannot find out the length of %s: %s", checksum, exc)


def _size(filename: str) -> int:
    return os.stat(filename).st_size


async def _store(content: bytes, writer: OutputWriter) -> None:
    import anyio.to_thread

    writer.restart()
    await anyio.to_thread.run_sync(writer.write, content)


def _sources() -> str:
    """The folders and URLs of the buffer clients, for messages."""
    from .. import buffer_remote

    folders = [str(client.directory) for client in buffer_remote._read_folders_clients]
    servers = [str(client.url) for client in buffer_remote._read_server_clients]
    return ", ".join(dict.fromkeys([*folders, *servers])) or "nowhere"
