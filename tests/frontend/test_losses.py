"""What happens to paths and services every day: calls go on, and nothing is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import anyio
import anyio.to_thread
import pytest
from hosts import HOSTS, Host
from laptop import Laptop, wait_for_end
from network_path import Way
from services import wait_until
from stored_buffers import buffer_of, checksum_of, fresh

from seamless_remote import Settings, buffer_remote, database_remote
from seamless_remote.launching import ssh_login
from seamless_remote.nursery.process import this_process

AT_ONCE = 20


def host_of(kind: str) -> Host:
    return Host(*HOSTS[kind], Settings())


@pytest.fixture(params=(pytest.param("asyncio-host", marks=pytest.mark.longer), "trio-alone"))
def host(request: pytest.FixtureRequest, select: Callable[[str], None]) -> Host:
    """A nursery of the host's on one backend, a hosted one on the other, and tunnels."""
    select("tunneled")
    return host_of(request.param)


@pytest.fixture(params=(("trio-host", "tunneled"), ("asyncio-alone", "direct")), ids=str)
def setting(request: pytest.FixtureRequest, select: Callable[[str], None]) -> tuple[Host, str]:
    """With tunnels on one backend, and without on the other."""
    kind, variant = request.param
    select(variant)
    return host_of(kind), variant


@pytest.fixture
def impatient(fresh_remote: None) -> Iterator[Settings]:
    """Settings with which silence is noticed soon, for hosted nurseries as well."""
    settings = Settings(healthcheck_timeout=1.0, keepalive_interval=0.5)
    this_process().settings = settings
    yield settings
    this_process().settings = None


def activate() -> None:
    buffer_remote.activate()
    database_remote.activate()


async def stored() -> bytes:
    """A buffer that the hashserver has, with a result of that name in the database."""
    content = fresh(1000)
    checksum = checksum_of(content)
    assert await buffer_remote.write_buffer(checksum, buffer_of(content)) is True
    assert await database_remote.set_transformation_result(checksum, checksum) is True
    return content


async def expect(content: bytes) -> None:
    """The buffer and its result are there."""
    buffer = await buffer_remote.get_buffer(checksum_of(content))
    assert buffer is not None
    assert buffer.content == content
    assert await database_remote.get_transformation_result(checksum_of(content)) is not None


async def many(content: bytes) -> None:
    """Reads and writes at once."""
    async with anyio.create_task_group() as group:
        for _ in range(AT_ONCE):
            group.start_soon(expect, content)
            group.start_soon(stored)


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)


def test_a_service_that_dies_is_launched_again_and_the_calls_that_meet_it_go_on(
    setting: tuple[Host, str], laptop: Laptop
) -> None:
    host, _ = setting
    activate()

    async def main() -> None:
        content = await stored()
        kill(laptop.service_pid("hashserver"))
        await many(content)

    host.run(main)


def test_when_tunnels_die_the_services_of_a_frontend_come_back_together(
    host: Host, laptop: Laptop
) -> None:
    activate()
    (database,) = database_remote._write_database_clients

    async def main() -> None:
        content = await stored()
        before = database.url
        kill(*laptop.tunnels_to("hashserver"), *laptop.tunnels_to("database"))
        # Only one is used.
        buffer = await buffer_remote.get_buffer(checksum_of(content))
        assert buffer is not None
        await anyio.to_thread.run_sync(
            lambda: wait_until(
                lambda: database.url not in (None, before), what="the database's new tunnel"
            )
        )
        await expect(content)

    host.run(main)


def test_a_path_that_is_silently_lost_is_given_up_and_what_waits_on_it_is_sent_again(
    host: Host, laptop: Laptop, impatient: Settings
) -> None:
    host.settings = impatient
    activate()

    async def main() -> None:
        content = await stored()
        laptop.network.lose()
        await many(content)

    host.run(main)


def test_a_service_that_is_silent_on_the_frontend_itself_is_not_replaced(
    host: Host,
    laptop: Laptop,
    impatient: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ssh_login, "COMMAND_TIMEOUT", 1.0)
    caplog.set_level("INFO", "seamless_remote.clients.frontends")
    host.settings = impatient
    activate()

    async def main() -> None:
        content = await stored()
        pid = laptop.service_pid("hashserver")
        os.kill(pid, signal.SIGSTOP)
        async with anyio.create_task_group() as group:
            group.start_soon(expect, content)
            await anyio.to_thread.run_sync(
                lambda: wait_until(
                    lambda: "does not answer by another way" in caplog.text, what="a look"
                )
            )
            os.kill(pid, signal.SIGCONT)
        assert laptop.service_pid("hashserver") == pid

    host.run(main)


def test_a_relaunch_that_fails_for_want_of_a_network_is_made_again(
    setting: tuple[Host, str], laptop: Laptop
) -> None:
    host, variant = setting
    activate()

    async def main() -> None:
        content = await stored()
        laptop.network.put(Way.CLOSED)
        laptop.network.cut()
        if variant == "direct":
            kill(laptop.service_pid("hashserver"))

        async with anyio.create_task_group() as group:
            group.start_soon(expect, content)
            group.start_soon(stored)
            await anyio.to_thread.run_sync(
                lambda: wait_until(lambda: laptop.network.turned_away, what="a relaunch")
            )
            laptop.network.put(Way.OPEN)

    host.run(main)
