"""Downloads that break off half-way: what has come is kept where that is sound, and only there."""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from fault_proxy import Fault, FaultProxy, Harm, Toward
from nursery_runs import BACKENDS, PATIENT, in_nursery
from played_answers import End, PlayedAnswer
from request_kinds import checksum_of, fresh_content, use
from seamless import Checksum
from services import Service

from seamless_remote import Settings, buffer_remote
from seamless_remote.buffers.ingest import BATCH_BYTES
from seamless_remote.errors import ServiceError

pytestmark = pytest.mark.parametrize("backend", BACKENDS)

SIZE = 5 * BATCH_BYTES
HALF = SIZE // 2
HEADS = 2000
"""Bytes that the heads of a few answers may have."""

IMPATIENT = Settings(total_timeout=1.0, max_tries=1, grace_period=0.5)

Start = Callable[[Service], FaultProxy]


def downloads(proxy: FaultProxy) -> list[bytes]:
    """The requests for a buffer: not the questions that a busy server is asked meanwhile."""
    return [line for line in proxy.requests() if not line.startswith(b"GET /has")]


class Gathered(io.BytesIO):
    """A target that counts how often its bytes began anew."""

    restarts = 0

    def restart(self) -> None:
        self.restarts += 1
        self.seek(0)
        self.truncate()

    async def get(self, checksum: Checksum) -> bool:
        return await buffer_remote.copy_buffer(checksum, self, self.restart)


@pytest.fixture(scope="module")
def content() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture(scope="module")
def checksum(content: bytes) -> Checksum:
    return Checksum(hashlib.sha256(content).hexdigest())


@pytest.fixture
def stored(shared_hashserver: Service, content: bytes, checksum: Checksum) -> Iterator[Service]:
    """A hashserver that has the content."""
    path = put_file(shared_hashserver, checksum, content)
    yield shared_hashserver
    path.unlink()


def put_file(service: Service, checksum: Checksum, stored: bytes, suffix: str = "") -> Path:
    path = Path(service.directory, checksum.hex()[:2], checksum.hex() + suffix)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(stored)
    return path


def played(*answers: Callable[[], bytes]) -> PlayedAnswer:
    """One answer after another, each on a connection that is closed after it."""
    in_turn = iter(answers)
    return PlayedAnswer("in turn", lambda: [next(in_turn)()], end=End.CLOSE)


def answer(body: bytes, *lines: str, status: int = 200, length: int | None = None) -> bytes:
    head = [
        f"HTTP/1.1 {status} Made up",
        f"Content-Length: {len(body) if length is None else length}",
    ]
    return "\r\n".join([*head, *lines, "", ""]).encode() + body


def part(body: bytes, start: int, *lines: str) -> bytes:
    """What a server sends that has the bytes from `start` on."""
    end = start + len(body)
    return answer(body, f"Content-Range: bytes {start}-{end - 1}/{end}", *lines, status=206)


def broken_off(content: bytes) -> bytes:
    return answer(content[:HALF], length=len(content))


def kept(proxy: FaultProxy) -> int:
    """How much of what came first was not asked for again."""
    (wanted,) = proxy.ranges()
    return int(wanted.removeprefix(b"bytes=").removesuffix(b"-"))


@pytest.mark.parametrize("harm", [Harm.CUT, Harm.STALL])
def test_a_download_goes_on_where_it_broke_off(
    backend: str, harm: Harm, stored: Service, content: bytes, checksum: Checksum, faulty: Start
) -> None:
    proxy = faulty(stored)
    target = Gathered()

    async def body() -> None:
        use(buffer_remote, proxy.url)
        proxy.put(Fault(harm, Toward.CLIENT, HALF))
        assert await target.get(checksum)

    in_nursery(backend, Settings(read_timeout=1.0, grace_period=0.5), body)
    assert target.getvalue() == content
    assert not target.restarts
    assert len(downloads(proxy)) == 2
    assert 0 < HALF - kept(proxy) <= BATCH_BYTES + HEADS
    assert proxy.passed_to_clients < HALF + (SIZE - kept(proxy)) + HEADS


def test_a_download_that_breaks_off_again_and_again_gets_further_each_time(
    backend: str, stored: Service, content: bytes, checksum: Checksum, faulty: Start
) -> None:
    proxy = faulty(stored)

    async def body() -> None:
        use(buffer_remote, proxy.url)
        proxy.put(Fault(Harm.CUT, Toward.CLIENT, BATCH_BYTES + (1 << 20), times=3))
        buffer = await buffer_remote.get_buffer(checksum)
        assert buffer is not None
        assert buffer.content == content

    in_nursery(backend, PATIENT, body)
    starts = [int(wanted[len(b"bytes=") : -1]) for wanted in proxy.ranges()]
    assert len(starts) == 3
    assert sorted(set(starts)) == starts
    assert starts[0] > 0


def test_a_download_that_has_hardly_begun_begins_anew(
    backend: str, stored: Service, content: bytes, checksum: Checksum, faulty: Start
) -> None:
    proxy = faulty(stored)
    target = Gathered()

    async def body() -> None:
        use(buffer_remote, proxy.url)
        proxy.put(Fault(Harm.CUT, Toward.CLIENT, 100_000))
        assert await target.get(checksum)

    in_nursery(backend, PATIENT, body)
    assert target.getvalue() == content
    assert not proxy.ranges()


@pytest.mark.parametrize("suffix", [".zst", ".gz"])
def test_a_compressed_download_begins_anew(
    backend: str, suffix: str, shared_hashserver: Service, faulty: Start
) -> None:
    content = os.urandom(SIZE)
    checksum = checksum_of(content)
    compress = zstandard.compress if suffix == ".zst" else gzip.compress
    put_file(shared_hashserver, checksum, compress(content), suffix)
    proxy = faulty(shared_hashserver)
    target = Gathered()

    async def body() -> None:
        use(buffer_remote, proxy.url)
        proxy.put(Fault(Harm.CUT, Toward.CLIENT, HALF))
        assert await target.get(checksum)

    in_nursery(backend, PATIENT, body)
    assert target.getvalue() == content
    assert target.restarts == 1
    assert not proxy.ranges()


def unfit_answers(content: bytes, start: int) -> dict[str, bytes]:
    rest = content[start:]
    return {
        "a part that begins too late": part(rest[1:], start + 1),
        "a part that begins too early": part(content[start - 1 :], start - 1),
        "a part that ends too early": answer(
            rest[:-1], f"Content-Range: bytes {start}-{SIZE - 2}/{SIZE}", status=206
        ),
        "a part of something longer": answer(
            rest, f"Content-Range: bytes {start}-{SIZE - 1}/{SIZE + 1}", status=206
        ),
        "a part of unknown place": answer(rest, status=206),
        "a part named by nonsense": answer(rest, "Content-Range: rest", status=206),
        "a part of a compressed form": part(rest, start, "Content-Encoding: gzip"),
        "several parts": answer(b"--x", "Content-Type: multipart/byteranges", status=206),
        "no such part": answer(b"", f"Content-Range: bytes */{start}", status=416),
        "the right part, but other bytes": part(bytes(len(rest)), start),
    }


@pytest.mark.parametrize("name", unfit_answers(b"", 1))
def test_an_answer_that_does_not_fit_to_what_came_first_begins_the_download_anew(
    backend: str,
    name: str,
    stored: Service,
    content: bytes,
    checksum: Checksum,
    faulty: Start,
    tried: Callable[[str], None],
) -> None:
    proxy = faulty(stored)
    target = Gathered()

    def unfit() -> bytes:
        return unfit_answers(content, kept(proxy))[name]

    async def body() -> None:
        use(buffer_remote, proxy.url)
        with proxy.play(
            played(lambda: broken_off(content), unfit, lambda: answer(content)),
            "GET /[0-9a-f]{64} ",
        ):
            assert await target.get(checksum)

    in_nursery(backend, PATIENT, body)
    assert len(downloads(proxy)) == 3
    assert target.getvalue() == content
    assert target.restarts == 1
    tried(f"the rest of a download: {name}")


def test_a_server_that_knows_no_ranges_sends_the_whole_once_more(
    backend: str, stored: Service, content: bytes, checksum: Checksum, faulty: Start
) -> None:
    proxy = faulty(stored)
    target = Gathered()

    async def body() -> None:
        use(buffer_remote, proxy.url)
        with proxy.play(
            played(lambda: broken_off(content), lambda: answer(content)), "GET /[0-9a-f]{64} "
        ):
            assert await target.get(checksum)

    in_nursery(backend, PATIENT, body)
    assert target.getvalue() == content
    assert target.restarts == 1
    assert len(downloads(proxy)) == 2


@pytest.mark.parametrize("status", [200, 404])
def test_a_buffer_that_is_wrong_or_gone_after_the_break_leaves_nothing_behind(
    backend: str,
    status: int,
    stored: Service,
    content: bytes,
    checksum: Checksum,
    faulty: Start,
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy = faulty(stored)
    target = Gathered()
    other = answer(bytes(SIZE) if status == 200 else b"Not found", status=status)

    async def body() -> None:
        use(buffer_remote, proxy.url)
        with (
            caplog.at_level(logging.WARNING, "seamless_remote"),
            proxy.play(
                played(lambda: broken_off(content), *[lambda: other] * 2), "GET /[0-9a-f]{64} "
            ),
        ):
            assert not await target.get(checksum)

    in_nursery(backend, PATIENT, body)
    assert target.getvalue() == b""
    assert ("sent wrong bytes" in caplog.text) == (status == 200)


@pytest.mark.parametrize("harm", [Harm.CUT, Harm.STALL])
def test_what_one_server_sent_of_a_buffer_is_not_mixed_with_what_another_sends(
    backend: str, harm: Harm, stored: Service, content: bytes, checksum: Checksum, faulty: Start
) -> None:
    proxy = faulty(stored)
    target = Gathered()

    async def body() -> None:
        names = []
        for name, url in (("first", proxy.url), ("second", stored.url)):
            names.append(f"{name}-{harm.name}-{backend}")
            buffer_remote.define_extern_client(names[-1], "hashserver", url=url)
        buffer_remote.activate(no_main=True, extern_clients=names)
        proxy.put(Fault(harm, Toward.CLIENT, HALF, times=99))
        assert await target.get(checksum)
        proxy.put(None)

    in_nursery(backend, IMPATIENT, body)
    assert target.getvalue() == content


def test_a_download_that_fails_for_good_leaves_nothing_behind(
    backend: str, stored: Service, checksum: Checksum, faulty: Start
) -> None:
    proxy = faulty(stored)

    class GatheredOnce(Gathered):
        """Once it has something, no answer brings any more."""

        def write(self, data: Any, /) -> int:
            proxy.put(Fault(Harm.CUT, Toward.CLIENT, 0, times=99))
            return super().write(data)

    target = GatheredOnce()

    async def body() -> None:
        use(buffer_remote, proxy.url)
        proxy.put(Fault(Harm.CUT, Toward.CLIENT, HALF))
        with pytest.raises(ServiceError):
            await target.get(checksum)

    in_nursery(backend, Settings(max_tries=1, grace_period=0.5), body)
    assert target.getvalue() == b""


@pytest.mark.parametrize(("size", "suffix"), [(80_000_000, ".zst"), (SIZE, ".zst")])
def test_a_compressed_buffer_is_sent_once_however_long_it_is(
    backend: str, size: int, suffix: str, shared_hashserver: Service, faulty: Start
) -> None:
    content = b"".join(os.urandom(1 << 20) for _ in range(size >> 20))
    checksum = checksum_of(content)
    sent = zstandard.compress(content, 1)
    path = put_file(shared_hashserver, checksum, sent, suffix)
    proxy = faulty(shared_hashserver)

    async def body() -> None:
        use(buffer_remote, proxy.url)
        buffer = await buffer_remote.get_buffer(checksum)
        assert buffer is not None
        assert buffer.content == content

    in_nursery(backend, PATIENT, body)
    path.unlink()
    assert len(sent) <= proxy.passed_to_clients < len(sent) + HEADS


@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_an_upload_that_was_corrupted_on_its_way_is_made_again(
    backend: str, size: int, shared_hashserver: Service, faulty: Start
) -> None:
    proxy = faulty(shared_hashserver)
    content = fresh_content(size)
    checksum = checksum_of(content)

    async def body() -> None:
        use(buffer_remote, proxy.url)
        proxy.put(Fault(Harm.CORRUPT, Toward.SERVICE, size - 100))
        assert await buffer_remote.write_buffer(checksum, buffer_remote.Buffer(content))

    in_nursery(backend, PATIENT, body)
    path = Path(shared_hashserver.directory, checksum.hex()[:2], checksum.hex())
    assert path.read_bytes() == content
    uploads = [line for line in proxy.requests() if line.startswith(b"PUT ")]
    assert len(uploads) == 2


def test_an_upload_that_stays_corrupted_is_an_error_that_says_so(
    backend: str, shared_hashserver: Service, faulty: Start
) -> None:
    proxy = faulty(shared_hashserver)
    content = fresh_content(1000)

    async def body() -> None:
        use(buffer_remote, proxy.url)
        proxy.put(Fault(Harm.CORRUPT, Toward.SERVICE, 900))
        with pytest.raises(ServiceError, match="other bytes arrived than were sent"):
            await buffer_remote.write_buffer(checksum_of(content), buffer_remote.Buffer(content))

    in_nursery(backend, Settings(max_tries=1, grace_period=0.5), body)
