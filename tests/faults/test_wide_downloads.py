"""Large downloads from far away, by several connections: the right bytes, whatever goes wrong."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from fault_proxy import Fault, FaultProxy, Harm
from nursery_runs import BACKENDS, PATIENT, in_nursery
from played_answers import End, PlayedAnswer
from request_kinds import use
from seamless import Checksum
from services import Service, wait_until

from seamless_remote import buffer_remote
from seamless_remote.buffers import wide_body
from seamless_remote.clients.hashserver import HashserverClient
from seamless_remote.clients.health import Health

pytestmark = pytest.mark.parametrize("backend", BACKENDS)

STRIPE = 1 << 15
LEAD = 1 << 17
SIZE = (4 << 20) + 12345

Start = Callable[[Service], FaultProxy]


@pytest.fixture(autouse=True)
def far_and_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every server is far away, every connection slow, and nothing too small for more of them."""
    monkeypatch.setattr(HashserverClient, "_is_far", lambda client, endpoint: True)
    monkeypatch.setattr(wide_body, "FAST", float("inf"))
    for name, value in (
        ("WORTH_BYTES", 1 << 20),
        ("MEASURED_BYTES", LEAD),
        ("LEAD_BYTES", LEAD),
        ("STRIPE_BYTES", STRIPE),
        ("MOST_RANGES", 20),
    ):
        monkeypatch.setattr(wide_body, name, value)


@pytest.fixture(scope="module")
def content() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture(scope="module")
def checksum(content: bytes) -> Checksum:
    return Checksum(hashlib.sha256(content).hexdigest())


@pytest.fixture
def stored(shared_hashserver: Service, content: bytes, checksum: Checksum) -> Iterator[Service]:
    path = Path(shared_hashserver.directory, checksum.hex()[:2], checksum.hex())
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    yield shared_hashserver
    path.unlink()


class Gathered(io.BytesIO):
    """A target that takes bytes in order only."""

    def restart(self) -> None:
        self.seek(0)
        self.truncate()


async def got(checksum: Checksum) -> bytes:
    buffer = await buffer_remote.get_buffer(checksum)
    assert buffer is not None
    return bytes(buffer.content)


def downloads(proxy: FaultProxy) -> list[bytes]:
    """The requests for a buffer: not the questions that a busy server is asked meanwhile."""
    return [line for line in proxy.requests() if not line.startswith(b"GET /has")]


def asked(proxy: FaultProxy) -> list[tuple[int, int]]:
    """All ranges that were asked for, of requests that name several."""
    return [
        (int(first), int(last))
        for wanted in proxy.ranges()
        if b"," in wanted
        for first, last in re.findall(rb"([0-9]+)-([0-9]+)", wanted)
    ]


def test_the_rest_comes_in_stripes_each_asked_for_once(
    backend: str, stored: Service, faulty: Start, content: bytes, checksum: Checksum
) -> None:
    proxy = faulty(stored)

    async def main() -> None:
        use(buffer_remote, proxy.url)
        assert await got(checksum) == content
        target = Gathered()
        assert await buffer_remote.copy_buffer(checksum, target, target.restart)
        assert target.getvalue() == content

    in_nursery(backend, PATIENT, main)
    stripes = sorted(asked(proxy))
    starts = list(range(2 * LEAD, SIZE, STRIPE))
    # Twice: one buffer was read into memory, and once more to the target.
    assert [first for first, _ in stripes[::2]] == starts
    assert stripes[::2] == stripes[1::2]
    assert all(last == min(first + STRIPE, SIZE) - 1 for first, last in stripes)
    # More than one request can name, so there were several rounds of them.
    assert len(starts) > wide_body.WIDTH * wide_body.MOST_RANGES


@pytest.mark.parametrize("left", [1, 2, 3, 4, 5])
def test_few_stripes_left_for_the_last_round_are_no_failure(
    backend: str, shared_hashserver: Service, faulty: Start, content: bytes, left: int
) -> None:
    """A connection that is left with one range gets it as a plain 206."""
    round_size = wide_body.WIDTH * wide_body.MOST_RANGES * STRIPE
    part = content[: 2 * LEAD + round_size + left * STRIPE - 1]
    checksum = Checksum(hashlib.sha256(part).hexdigest())
    path = Path(shared_hashserver.directory, checksum.hex()[:2], checksum.hex())
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(part)
    proxy = faulty(shared_hashserver)

    async def main() -> None:
        use(buffer_remote, proxy.url)
        assert await got(checksum) == part
        (client,) = buffer_remote._read_server_clients
        assert client.health.state is Health.UP

    in_nursery(backend, PATIENT, main)
    assert len(downloads(proxy)) == 1 + wide_body.WIDTH + min(left, wide_body.WIDTH)


def test_a_server_that_does_not_give_so_many_ranges_gives_the_whole(
    backend: str,
    stored: Service,
    faulty: Start,
    content: bytes,
    checksum: Checksum,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A hashserver gives a hundred; asked for more, it answers with everything.
    monkeypatch.setattr(wide_body, "MOST_RANGES", 1000)
    monkeypatch.setattr(wide_body, "STRIPE_BYTES", 1 << 14)
    proxy = faulty(stored)

    async def main() -> None:
        use(buffer_remote, proxy.url)
        assert await got(checksum) == content

    in_nursery(backend, PATIENT, main)
    assert asked(proxy)
    assert len(downloads(proxy)) == 1 + wide_body.WIDTH


def test_a_fast_connection_is_left_alone(
    backend: str,
    stored: Service,
    faulty: Start,
    content: bytes,
    checksum: Checksum,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wide_body, "FAST", 0.0)
    proxy = faulty(stored)

    async def main() -> None:
        use(buffer_remote, proxy.url)
        assert await got(checksum) == content

    in_nursery(backend, PATIENT, main)
    assert not asked(proxy)


@pytest.mark.parametrize("harm", [Harm.CUT, Harm.RESET], ids=lambda harm: harm.name)
@pytest.mark.parametrize("at", [300, 10 * STRIPE], ids=str)
def test_a_download_whose_answers_break_off_goes_on(
    backend: str,
    stored: Service,
    faulty: Start,
    content: bytes,
    checksum: Checksum,
    harm: Harm,
    at: int,
) -> None:
    proxy = faulty(stored)

    async def main() -> None:
        use(buffer_remote, proxy.url)
        # The first answer on a connection is struck, be it one with stripes or not.
        proxy.put(Fault(harm, at=at, times=3))
        assert await got(checksum) == content

    in_nursery(backend, PATIENT, main)


def test_wrong_bytes_among_stripes_are_asked_for_anew(
    backend: str, stored: Service, faulty: Start, content: bytes, checksum: Checksum
) -> None:
    proxy = faulty(stored)

    async def main() -> None:
        use(buffer_remote, proxy.url)
        async with anyio.create_task_group() as group:

            async def read() -> None:
                assert await got(checksum) == content
                group.cancel_scope.cancel()

            group.start_soon(read)
            await anyio.to_thread.run_sync(lambda: wait_until(lambda: asked(proxy)))
            proxy.put(Fault(Harm.CORRUPT, at=STRIPE))
            await anyio.sleep_forever()

    in_nursery(backend, PATIENT, main)
    # Whether bytes were still to come is not in the test's hands. If they were, all came again, by
    # one connection.
    assert all(b"," in wanted for wanted in proxy.ranges())


def test_other_ranges_than_those_asked_for_are_not_taken(
    backend: str, stored: Service, faulty: Start, content: bytes, checksum: Checksum
) -> None:
    proxy = faulty(stored)
    head = f"--b\r\nContent-Range: bytes 0-{STRIPE - 1}/{SIZE}\r\n\r\n".encode()
    body = head + content[:STRIPE] + b"\r\n--b--"
    answer = b"\r\n".join(
        (
            b"HTTP/1.1 206 Made up",
            b"Content-Type: multipart/byteranges; boundary=b",
            b"Content-Length: %d" % len(body),
            b"",
            body,
        )
    )
    whole = b"HTTP/1.1 200 Made up\r\nContent-Length: %d\r\n\r\n" % len(content)
    # The last one answers the request for the rest, which a server may do with everything.
    in_turn = iter([whole + content, *([answer] * wide_body.WIDTH), whole + content])
    made_up = PlayedAnswer("other ranges", lambda: [next(in_turn)], end=End.CLOSE)

    async def main() -> None:
        use(buffer_remote, proxy.url)
        with proxy.play(made_up, only=f"/{checksum.hex()}"):
            assert await got(checksum) == content

    in_nursery(backend, PATIENT, main)
    assert len(downloads(proxy)) == 1 + wide_body.WIDTH + 1
