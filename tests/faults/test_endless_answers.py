"""Answers without end, and answers and files that inflate without end: memory stays bounded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest
from fault_proxy import FaultProxy
from made_up_service import Answer, MadeUpService
from malformed_answers import gzip_zeros, whole, zstd_zeros
from malformed_contents import WITHOUT_END
from memory import forget_peak, peak
from nursery_runs import BACKENDS, in_nursery
from played_answers import End, PlayedAnswer
from request_kinds import KINDS, checksum_of, fresh_content, use
from seamless import Buffer, Checksum
from services import Service

from seamless_remote import Settings, buffer_remote, database_remote
from seamless_remote.clients.base import ANSWER_LIMIT
from seamless_remote.errors import RemoteError, ServiceError

MAY_TAKE = 250_000_000
"""Bytes: twice what is read of an answer, or taken of a buffer, before questions are asked."""

UNHURRIED = Settings(total_timeout=20.0, max_tries=1, grace_period=0.5)

ASKED = ["get_buffer", "copy_buffer", "get_buffer_lengths", "promise", "get_transformation_result"]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        pytest.param(name, answer, id=f"{name}-{answer.name}")
        for name in ASKED
        for answer in WITHOUT_END
        # What is whole is wrong for buffers only.
        if answer.status is None or KINDS[name].nothing_known
    ],
)
def test_an_answer_without_end_takes_bounded_memory(
    name: str,
    answer: PlayedAnswer,
    shared_hashserver: Service,
    shared_database: Service,
    faulty: Callable[[Service], FaultProxy],
    tried: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    kind = KINDS[name]
    proxy = faulty(shared_hashserver if kind.module is buffer_remote else shared_database)
    is_buffer = bool(kind.nothing_known)

    async def body() -> None:
        use(kind.module, proxy.url)
        call = await kind.prepare()
        before = forget_peak()
        # The question how long a buffer is, is answered by the real service.
        with proxy.play(answer, "GET /[0-9a-f]{64} " if is_buffer else ""):
            await _is_bad(call, kind.nothing_known)
        assert peak() - before < MAY_TAKE
        assert kind.right(await call())

    backend = BACKENDS[(ASKED.index(name) + WITHOUT_END.index(answer)) % 2]
    in_nursery(backend, UNHURRIED, body)
    tried(f"{name}: {answer.name}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_list_far_longer_than_what_was_asked_for_is_not_read_to_its_end(
    backend: str,
    shared_hashserver: Service,
    faulty: Callable[[Service], FaultProxy],
    tried: Callable[[str], None],
) -> None:
    kind = KINDS["get_buffer_lengths"]
    proxy = faulty(shared_hashserver)
    answer = whole("a million lengths for one", b"[" + b"1234," * 1_000_000 + b"1234]")

    async def body() -> None:
        use(buffer_remote, proxy.url)
        call = await kind.prepare()
        with (
            proxy.play(answer, "/buffer-length"),
            pytest.raises(ServiceError, match=r"body is longer than \d{5} bytes"),
        ):
            await call()
        assert kind.right(await call())

    in_nursery(backend, UNHURRIED, body)
    tried(f"get_buffer_lengths: {answer.name}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_record_that_is_too_long_is_asked_for_once(
    backend: str,
    fresh_remote: None,
    made_up: Callable[[Answer], MadeUpService],
) -> None:
    record = b'{"text": "' + b"x" * ANSWER_LIMIT + b'"}'
    service = made_up(lambda method, path, body: (200, b"OK" if path != "/" else record))

    async def body() -> None:
        use(database_remote, service.url)
        with pytest.raises(ServiceError, match=f"longer than {ANSWER_LIMIT} bytes"):
            await database_remote.get_execution_record(checksum_of(fresh_content()))
        assert len([path for _, path, _ in service.requests if path == "/"]) == 1

    in_nursery(backend, Settings(total_timeout=60.0, grace_period=0.5), body)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("suffix", "stored"), [(".zst", zstd_zeros), (".gz", lambda: gzip_zeros() * 4)]
)
def test_a_file_that_inflates_to_gigabytes_takes_bounded_memory(
    backend: str,
    suffix: str,
    stored: Callable[[], bytes],
    shared_hashserver: Service,
    tmp_path: Path,
    tried: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    content = fresh_content()
    checksum = checksum_of(content)
    (tmp_path / (checksum.hex() + suffix)).write_bytes(stored())

    async def body() -> None:
        use(buffer_remote, shared_hashserver.url)
        assert await buffer_remote.write_buffer(checksum, Buffer(content))
        for name, type_, where in (
            ("folder", "bufferfolder", {"directory": str(tmp_path)}),
            ("server", "hashserver", {"url": shared_hashserver.url}),
        ):
            buffer_remote.define_extern_client(name, type_, **where)
        buffer_remote.activate(no_main=True, extern_clients=["folder", "server"])
        before = forget_peak()
        buffer = await buffer_remote.get_buffer(checksum)
        assert peak() - before < MAY_TAKE
        assert buffer is not None
        assert buffer.content == content

    in_nursery(backend, UNHURRIED, body)
    assert "holds wrong bytes" in caplog.text
    tried(f"a file that inflates to gigabytes, {suffix}")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("announced", [2 << 30, 1 << 45, (1 << 63) - 1])
def test_a_length_that_is_a_lie_takes_no_memory(
    backend: str,
    announced: int,
    shared_hashserver: Service,
    faulty: Callable[[Service], FaultProxy],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    proxy = faulty(shared_hashserver)
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {announced}\r\n\r\n".encode()
    lie = PlayedAnswer("a lie", lambda: [head + bytes(3 << 20)], end=End.CLOSE)

    async def body() -> None:
        use(buffer_remote, proxy.url)
        with proxy.play(lie, "GET /[0-9a-f]{64} "), pytest.raises(ServiceError):
            await buffer_remote.get_buffer(Checksum(checksum_of(fresh_content()).hex()))

    before = forget_peak()
    in_nursery(backend, UNHURRIED, body)
    assert peak() - before < MAY_TAKE


@pytest.mark.parametrize("backend", BACKENDS)
def test_giving_up_on_a_file_that_inflates_to_gigabytes_does_not_wait_for_them(
    backend: str, tmp_path: Path
) -> None:
    checksum = checksum_of(fresh_content())
    # Some 300 kB that stand for 6 GiB.
    (tmp_path / (checksum.hex() + ".zst")).write_bytes(zstd_zeros() * 3)
    counted = Counted()

    async def body() -> None:
        buffer_remote.define_extern_client("folder", "bufferfolder", directory=str(tmp_path))
        buffer_remote.activate(no_main=True, extern_clients=["folder"])
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(buffer_remote.copy_buffer, checksum, counted, counted.restart)
            await anyio.to_thread.run_sync(counted.begun.wait)
            task_group.cancel_scope.cancel()

    in_nursery(backend, UNHURRIED, body)
    assert 0 < counted.length < 3 << 30


class Counted:
    """A target that only counts, and tells when the first bytes have come."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.length = 0

    def write(self, data: bytes | memoryview) -> None:
        self.length += len(data)
        self.begun.set()

    def restart(self) -> None:
        self.length = 0


async def _is_bad(call: Callable[[], Any], nothing_known: tuple[Any, ...]) -> None:
    try:
        outcome = await call()
    except RemoteError:
        return
    assert any(outcome is each for each in nothing_known)
