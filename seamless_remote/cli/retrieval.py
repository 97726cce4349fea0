"""Getting the buffer: a nursery of the tool's own, and the clients in it."""

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
"""How much goes to a file at once: for more, Linux looks for large pieces of memory, which may take
it several times as long as the writing."""

Recovery = Callable[[str], Awaitable[bytes]]
"""Makes a buffer that no source has; a Failure says why it cannot."""


class Gathering:
    """The file that gathers the buffer, as the clients write it."""

    def __init__(self, destination: Destination, progress: Progress) -> None:
        self._destination = destination
        self.progress = progress
        self._file: IO[bytes] = destination.open()

    def write(self, data: bytes | memoryview) -> None:
        """Take more bytes. Failure: there is no room for them."""
        view = memoryview(data)
        try:
            for start in range(0, len(view), PIECE_BYTES):
                self._file.write(view[start : start + PIECE_BYTES])
        except OSError as exc:
            raise self._destination.failure(exc) from exc
        self.progress.advance(len(data))

    def restart(self) -> None:
        """Forget all bytes so far."""
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
    """Gather the buffer in `destination`, verified; nothing is left running.

    Raises:
        Failure: it cannot be had, or not be stored.
        RemoteError: a service failed.
        Interrupted: a signal came.
    """
    progress = Progress(checksum[:8])
    gathering = Gathering(destination, progress)
    watched = wants_progress(arguments.quiet)

    async def work() -> None:
        from .configuration import configure

        configure(arguments.project, arguments.stage, results=recover is not None)
        if await (_copy_watched if watched else _copy)(checksum, gathering):
            return
        sources = _sources()
        logger.info("%s is not in %s", checksum, sources)
        if recover is None:
            raise Failure(
                Status.UNKNOWN_CHECKSUM,
                f"no source has a buffer with checksum {checksum} (asked: {sources}); "
                "seamless-fingertip may be able to recompute it",
            )
        await _store(await recover(checksum), gathering)

    _run(work, interruption)


def _run(work: Callable[[], Awaitable[None]], interruption: Interruption) -> None:
    """Run `work` in an event loop with a nursery, and close Seamless after it."""
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
                    # In a thread, for what it writes at the end is sent by the nursery.
                    with anyio.CancelScope(shield=True):
                        await anyio.to_thread.run_sync(seamless.close)

    anyio.run(main, backend="asyncio")
    interruption.check()


async def _copy(checksum: str, gathering: Gathering) -> bool:
    """Copy the buffer from a source; False where none has it."""
    from seamless import Checksum
    from seamless.checksum.calculate_checksum import TRIVIAL_CHECKSUMS

    from .. import buffer_remote

    trivial = TRIVIAL_CHECKSUMS.get(checksum)
    if trivial is not None:
        # Seamless knows these by heart, stored or not.
        gathering.write(trivial)
        return True
    return await buffer_remote.copy_buffer(Checksum(checksum), gathering, gathering.restart)


async def _copy_watched(checksum: str, gathering: Gathering) -> bool:
    """The same with a progress bar."""
    import anyio

    failure: Exception | None = None
    found = False
    try:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(_show, checksum, gathering.progress)
            try:
                found = await _copy(checksum, gathering)
            except Exception as exc:
                failure = exc
            task_group.cancel_scope.cancel()
    finally:
        gathering.progress.close()
    if failure is not None:
        raise failure
    return found


async def _show(checksum: str, progress: Progress) -> None:
    """Show the progress, with the buffer's length where that takes no reading of the buffer."""
    import anyio
    from seamless import Checksum

    from .. import RemoteError, buffer_remote

    await anyio.sleep(DELAY_SECONDS)
    progress.show()
    try:
        filename = await buffer_remote.get_filename(Checksum(checksum))
        if filename is not None:
            progress.expect(_size(filename))
        elif not any(client.folder for client in buffer_remote._read_folders_clients):
            (length,) = await buffer_remote.get_buffer_lengths([Checksum(checksum)])
            if length is not None:
                progress.expect(length)
    except (RemoteError, OSError) as exc:
        logger.debug("the length of %s is not known: %s", checksum, exc)


def _size(filename: str) -> int:
    return os.stat(filename).st_size


async def _store(content: bytes, gathering: Gathering) -> None:
    import anyio.to_thread

    gathering.restart()
    await anyio.to_thread.run_sync(gathering.write, content)


def _sources() -> str:
    """Where buffers are looked for, for messages."""
    from .. import buffer_remote

    folders = [str(client.directory) for client in buffer_remote._read_folders_clients]
    servers = [str(client.url) for client in buffer_remote._read_server_clients]
    return ", ".join(dict.fromkeys([*folders, *servers])) or "nowhere"
