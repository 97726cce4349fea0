"""A launched service that is gone is launched again, and no call suffers for having met its end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import remote_http_launcher
from loops import KINDS, LoopThread, run
from made_up_service import Answer, MadeUpService
from many_calls import all_at_once, look_ups
from played_launches import PlayedLaunches
from services import Home, Service, wait_until
from signals import LONG
from silent_server import SilentServer
from stored_buffers import checksum_of, fresh

import seamless_remote
from seamless_remote import ServiceError, Settings, database_remote
from seamless_remote.clients import retry_policy, retrying
from seamless_remote.errors import LaunchError

IN_EACH_LOOP = 150
UNBOUNDED = Settings(database_max_inflight=0, max_connections=0, grace_period=0.5)
"""All calls are in flight at once, so that all of them meet the service's end."""
TRIES = Settings().max_tries

Loops = Callable[[str], LoopThread]


@pytest.fixture
def played(cluster: Home, monkeypatch: pytest.MonkeyPatch) -> PlayedLaunches:
    """The launches of the cluster's database."""
    launches = PlayedLaunches()
    monkeypatch.setattr(remote_http_launcher, "run", launches.run)
    return launches


def look_up() -> Any:
    return run("asyncio", database_remote.get_transformation_result, checksum_of(fresh(30)))


def client() -> Any:
    (found,) = database_remote._read_database_clients
    return found


def waiting_for(text: str) -> int:
    """How many of the calls under way wait for this."""
    nursery = seamless_remote.current_nursery()
    assert nursery is not None
    return sum(text in each.waits_for for each in nursery.snapshot().calls)


@pytest.mark.parametrize("failing", [0, 2])
def test_calls_of_three_loops_that_have_each_failed_once_end_well_however_late_the_relaunch(
    failing: int,
    played: PlayedLaunches,
    silent: Callable[[], SilentServer],
    shared_database: Service,
    loop_threads: Loops,
    hosted_settings: Callable[[Settings], None],
) -> None:
    """Also if the first relaunches fail."""
    hosted_settings(UNBOUNDED)
    first, come_back = silent(), threading.Event()

    def play(number: int) -> int:
        if number == 1:
            return first.port
        if number <= 1 + failing:
            return played.refuse()
        assert come_back.wait(LONG)
        return shared_database.port

    played.play = play
    database_remote.activate()
    many = look_ups(IN_EACH_LOOP)
    calls = [loop_threads(kind).start(all_at_once, many) for kind in KINDS]
    count = len(calls) * IN_EACH_LOOP
    first.wait_for("GET / ", count)
    first.die()
    wait_until(lambda: waiting_for("the launch of its service") == count)
    come_back.set()
    for each in calls:
        each.result(LONG)
    assert played.count == 2 + failing
    assert client().counters.retries == count
    assert client().in_flight == 0


def test_a_relaunch_that_fails_for_good_ends_the_calls_with_an_error_that_names_it(
    played: PlayedLaunches,
    silent: Callable[[], SilentServer],
    loop_threads: Loops,
    hosted_settings: Callable[[Settings], None],
    quick_retries: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hosted_settings(UNBOUNDED)
    first, fail_now = silent(), threading.Event()

    def play(number: int) -> int:
        if number == 1:
            return first.port
        assert fail_now.wait(LONG)
        return played.refuse()

    played.play = play
    database_remote.activate()
    failed: list[ServiceError] = []

    async def fail() -> None:
        with pytest.raises(ServiceError) as caught:
            await look_ups(1)[0]()
        failed.append(caught.value)

    calls = [loop_threads(kind).start(all_at_once, [fail] * IN_EACH_LOOP) for kind in KINDS]
    count = len(calls) * IN_EACH_LOOP
    first.wait_for("GET / ", count)
    first.die()
    wait_until(lambda: waiting_for("the launch of its service") == count)
    monkeypatch.setattr(retrying, "PATIENCE", 0.0)
    fail_now.set()
    for each in calls:
        each.result(LONG)
    assert len(failed) == count
    for error in failed:
        assert f"database of testproject on local at {first.url}" in str(error)
        assert "there is no room for it" in str(error)
    assert client().in_flight == 0


def test_a_first_launch_that_fails_is_an_error_at_once(played: PlayedLaunches) -> None:
    database_remote.activate()
    with pytest.raises(LaunchError, match="there is no room for it"):
        look_up()


@pytest.mark.parametrize(
    "result",
    [KeyError("HOME"), TypeError("odd"), {}, {"hostname": "127.0.0.1"}, {"port": 1}, None],
    ids=repr,
)
def test_whatever_the_launcher_gives_or_raises_is_an_address_or_a_typed_error(
    result: Any, cluster: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(launch_dict: dict[str, Any]) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(remote_http_launcher, "run", launch)
    database_remote.activate()
    with pytest.raises(LaunchError, match="could not launch the database of testproject on local"):
        look_up()


def test_tries_at_a_service_that_was_launched_again_count_anew(
    played: PlayedLaunches,
    made_up: Callable[[Answer], MadeUpService],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It fails as often as it may at each of them, but for once, and then succeeds."""
    busy = made_up(lambda *request: (503, b"busy"))
    looked_up: list[bytes] = []

    def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if path == "/healthcheck":
            return 200, b"OK"
        looked_up.append(body)
        return (503, b"busy") if len(looked_up) < TRIES else (404, b"ERROR: Unknown key")

    second = made_up(answer)
    ports = [int(each.url.rpartition(":")[2]) for each in (busy, second)]
    played.play = lambda number: ports[number - 1]

    def pause(attempt: int, *args: object, **options: object) -> float:
        if attempt == TRIES - 2 and not looked_up:
            busy.close()  # the next try there is the last but one
        return 0.005

    monkeypatch.setattr(retry_policy, "pause", pause)
    database_remote.activate()
    assert look_up() is None
    assert len([each for each in busy.requests if each[1] == "/"]) == TRIES - 2
    assert len(looked_up) == TRIES
    assert played.count == 2


@pytest.mark.parametrize("calls", [1, 50])
def test_a_service_whose_every_relaunch_dies_at_once_is_not_launched_for_ever(
    calls: int, played: PlayedLaunches, nowhere: str, quick_retries: None
) -> None:
    played.play = lambda number: int(nowhere.rpartition(":")[2])
    database_remote.activate()
    failed: list[ServiceError] = []

    async def fail() -> None:
        with pytest.raises(ServiceError, match="refused") as caught:
            await database_remote.get_transformation_result(checksum_of(fresh(30)))
        failed.append(caught.value)

    run("asyncio", all_at_once, [fail] * calls)
    assert len(failed) == calls
    assert all(f"database of testproject on local at {nowhere}" in str(each) for each in failed)
    # Each call meets so many endpoints at most, and shares them with the others.
    assert played.count <= (TRIES + 1) * calls
    if calls == 1:
        assert TRIES <= played.count <= TRIES + 1
