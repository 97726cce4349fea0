"""A folder that cannot be read is not one without the buffer, and stops nobody's event loop."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from registering import use_buffers
from seamless import Checksum
from services import Service
from stored_buffers import fresh, put_file

from seamless_remote import OwnLimitError, ServiceError, buffer_remote
from seamless_remote.buffers import folder_pace, stored_file

pytestmark = pytest.mark.usefixtures("host")

Failing = Callable[..., None]


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Failing:
    """`failing(code, times)` makes opening a file in the folder fail so many times."""
    left: list[int] = []
    really = os.open

    def opened(path: Any, *arguments: Any, **named: Any) -> int:
        if left and str(path).startswith(str(tmp_path)):
            code = left.pop()
            raise OSError(code, os.strerror(code), path)
        return really(path, *arguments, **named)

    monkeypatch.setattr(stored_file.os, "open", opened)

    def fail(code: int, times: int) -> None:
        left[:] = [code] * times

    return fail


async def content_of(checksum: Checksum) -> bytes | None:
    buffer = await buffer_remote.get_buffer(checksum)
    return None if buffer is None else buffer.content


TROUBLE = [errno.EIO, errno.ETIMEDOUT, errno.ESTALE, errno.EACCES, errno.ENAMETOOLONG]


@pytest.mark.parametrize("code", TROUBLE, ids=errno.errorcode.get)
async def test_could_not_look_is_not_nowhere(tmp_path: Path, failing: Failing, code: int) -> None:
    use_buffers(tmp_path)
    checksum = put_file(tmp_path, fresh(1000))
    failing(code, 1000)
    said = rf"the buffer folder {tmp_path} could not be asked for .*: {os.strerror(code)}"
    with pytest.raises(ServiceError, match=said):
        await buffer_remote.get_buffer(checksum)
    with pytest.raises(ServiceError, match=said):
        await buffer_remote.get_buffer_lengths([checksum])
    failing(code, 0)
    assert await buffer_remote.get_buffer_lengths([checksum]) == [1000]
    assert await content_of(checksum) is not None


@pytest.mark.parametrize("code", TROUBLE[:2], ids=errno.errorcode.get)
async def test_what_one_source_could_not_tell_another_is_asked(
    tmp_path: Path, failing: Failing, shared_hashserver: Service, code: int
) -> None:
    use_buffers(tmp_path, shared_hashserver)
    content = fresh(1000)
    checksum = put_file(Path(shared_hashserver.directory), content)
    failing(code, 1000)
    assert await content_of(checksum) == content
    assert await buffer_remote.get_buffer_lengths([checksum]) == [1000]
    with pytest.raises(ServiceError, match=os.strerror(code)):
        await buffer_remote.get_buffer(Checksum("0" * 64))


async def test_lengths_that_are_known_hide_none_that_could_not_be_looked_up(
    tmp_path: Path, failing: Failing
) -> None:
    use_buffers(tmp_path)
    known, unsure = put_file(tmp_path, fresh(10)), put_file(tmp_path, fresh(20))
    failing(errno.EIO, 1)
    with pytest.raises(ServiceError, match="Input/output error"):
        await buffer_remote.get_buffer_lengths([unsure, known])
    assert await buffer_remote.get_buffer_lengths([unsure, known]) == [20, 10]


async def test_another_file_of_the_folder_may_have_it(tmp_path: Path, failing: Failing) -> None:
    use_buffers(tmp_path)
    content = fresh(1000)
    checksum = put_file(tmp_path, content)
    (tmp_path / checksum.hex()).write_bytes(content)
    failing(errno.EIO, 1)
    assert await content_of(checksum) == content


async def test_a_stale_handle_is_tried_once_more(tmp_path: Path, failing: Failing) -> None:
    use_buffers(tmp_path)
    content = fresh(1000)
    checksum = put_file(tmp_path, content)
    failing(errno.ESTALE, 1)
    assert await content_of(checksum) == content


async def test_a_lack_of_descriptors_is_this_processes_own_limit(tmp_path: Path) -> None:
    use_buffers(tmp_path)
    checksum = put_file(tmp_path, fresh(1000))
    await buffer_remote.get_buffer(checksum)  # whatever a first read opens
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), limits[1]))
        try:
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        with pytest.raises(OwnLimitError, match="Too many open files"):
            await buffer_remote.get_buffer(checksum)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in held:
            os.close(descriptor)


async def test_trouble_is_logged_once(
    tmp_path: Path, failing: Failing, caplog: pytest.LogCaptureFixture
) -> None:
    use_buffers(tmp_path)
    checksum = put_file(tmp_path, fresh(1000))
    failing(errno.EIO, 1000)
    for _ in range(3):
        with pytest.raises(ServiceError):
            await buffer_remote.get_buffer(checksum)
    assert caplog.text.count("the buffer folder") == 1


# Holds a lease of a file, and gives it back when somebody else wants to open it.
HOLDER = """
import fcntl, os, signal, sys
descriptor = os.open(sys.argv[1], os.O_RDWR)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
signal.sigwait({signal.SIGIO})
os.pwrite(descriptor, sys.stdin.buffer.read(), 0)
fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
"""


@pytest.mark.skipif(not hasattr(fcntl, "F_SETLEASE"), reason="leases are Linux's")
async def test_a_file_under_a_lease_is_waited_for(tmp_path: Path) -> None:
    """As Samba and NFS servers have them."""
    use_buffers(tmp_path)
    content = fresh(1000)
    for _ in range(2):  # once by a thread, and once where the loop itself would have read it
        checksum = put_file(tmp_path, content)
        path = tmp_path / checksum.hex()[:2] / checksum.hex()
        path.write_bytes(bytes(1000))
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"held\n"
        holder.stdin.write(content)
        holder.stdin.close()
        assert await content_of(checksum) == content
        assert holder.wait() == 0
        holder.stdout.close()


async def test_a_pipe_is_still_not_waited_for(tmp_path: Path) -> None:
    use_buffers(tmp_path)
    checksum = Checksum("ab" * 32)
    os.mkfifo(tmp_path / checksum.hex())
    assert await content_of(checksum) is None


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, threading.Event]]:
    """Opening a file in the folder takes until an event is set, as on NFS when its server rests."""
    events = {"begun": threading.Event(), "released": threading.Event()}
    really = os.open

    def opened(path: Any, *arguments: Any, **named: Any) -> int:
        if str(path).startswith(str(tmp_path)):
            events["begun"].set()
            events["released"].wait()
        return really(path, *arguments, **named)

    monkeypatch.setattr(stored_file.os, "open", opened)
    yield events
    events["released"].set()


@pytest.mark.parametrize("warm", [False, True])
async def test_a_slow_read_of_a_small_file_stops_no_loop(
    tmp_path: Path, slow: dict[str, threading.Event], warm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_buffers(tmp_path)
    content = fresh(100)
    checksum = put_file(tmp_path, content)
    if warm:
        # A network file system has been quick before, and is not trusted all the same.
        monkeypatch.setattr(folder_pace, "is_local", lambda directory: False)
        slow["released"].set()
        assert await content_of(checksum) == content
        slow["released"].clear()
        slow["begun"].clear()
    found: list[object] = []

    async def read() -> None:
        found.append(await content_of(checksum))
        found.append(await buffer_remote.get_buffer_lengths([checksum]))
        found.append(await buffer_remote.get_filename(checksum))

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(read)
        await anyio.to_thread.run_sync(slow["begun"].wait)
        # The loop goes on.
        slow["released"].set()
    assert found == [content, [100], str(tmp_path / checksum.hex()[:2] / checksum.hex())]


async def test_a_folder_that_was_slow_once_is_left_to_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = folder_pace.FolderPace(str(tmp_path))
    monkeypatch.setattr(folder_pace, "is_local", lambda directory: True)
    assert not pace.is_quick
    await pace.elsewhere(lambda: None)
    assert pace.is_quick
    monkeypatch.setattr(folder_pace, "QUICK", -1.0)
    pace.here(lambda: None)
    assert not pace.is_quick


def test_what_is_not_in_the_page_cache_is_not_read_in_the_loop(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100_000))
    found = stored_file.open_stored(str(path), None)
    assert found is not None
    with found.file:
        assert found.read_now() == bytes(100_000)
        os.fsync(found.file.fileno())
        os.posix_fadvise(found.file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            assert found.read_now() == bytes(100_000)  # a file system in memory
        except stored_file.NotNowError:
            assert found.read_all() == bytes(100_000)


@pytest.mark.parametrize(
    ("line", "is_local"),
    [
        ("36 35 98:0 / {folder} rw - ext4 /dev/root rw", True),
        ("36 35 98:0 / {folder} rw shared:1 master:2 - tmpfs none rw", True),
        ("36 35 0:50 / {folder} rw - nfs4 host:/export rw", False),
        ("36 35 0:50 / {folder} rw - fuse.sshfs host: rw", False),
        ("36 35 0:50 / {folder}/other rw - nfs4 host:/export rw", True),
        ("36 35 0:50 / {folder}er rw - nfs4 host:/export rw", True),
        ("nonsense", False),
    ],
)
def test_a_network_file_system_is_told_from_a_local_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, is_local: bool
) -> None:
    table = tmp_path / "mountinfo"
    root = "1 0 8:1 / / rw - ext4 /dev/root rw\n"
    table.write_text(root + line.format(folder=tmp_path) + "\n")
    really = open
    monkeypatch.setattr(
        folder_pace, "open", lambda _, **named: really(table, **named), raising=False
    )
    assert folder_pace.is_local(str(tmp_path)) is is_local
