"""Real services that are killed, and whose relaunch fails at first and then takes its time."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable

import remote_http_launcher
from hosts import LaunchLog
from loops import KINDS, LoopThread
from many_calls import Calls, all_at_once, look_ups, records, writes
from services import Home, wait_until
from signals import LONG
from stored_buffers import checksum_of, fresh

import seamless_remote
from seamless_remote import buffer_remote, database_remote

OF_EACH_KIND = 25
FAILING_RUNS = 4
"""Runs of the launcher that fail: more than one relaunch makes."""


def reads_of_unknown(count: int) -> Calls:
    async def read() -> None:
        assert await buffer_remote.get_buffer(checksum_of(fresh(30))) is None

    return [read] * count


def calls_under_way() -> list[str]:
    """What each waits for."""
    nursery = seamless_remote.current_nursery()
    assert nursery is not None
    return [each.waits_for for each in nursery.snapshot().calls]


def test_calls_of_three_loops_survive_a_relaunch_that_fails_twice_and_then_takes_long(
    cluster: Home, launches: LaunchLog, loop_threads: Callable[[str], LoopThread]
) -> None:
    come_back = threading.Event()
    runs: Counter[str] = Counter()

    def before(tool: str) -> None:
        runs[tool] += 1
        if runs[tool] > 1 + FAILING_RUNS:
            assert come_back.wait(LONG)
        elif runs[tool] > 1:
            raise remote_http_launcher.LauncherError("not now")

    launches.before = before
    buffer_remote.activate()
    database_remote.activate()
    buffer_remote.ensure_initialized()
    database_remote.ensure_initialized()
    killed = [cluster.service_pid(tool) for tool in ("hashserver", "database")]
    for pid in killed:
        os.kill(pid, signal.SIGSTOP)
    kinds = (reads_of_unknown, look_ups, writes, records)
    many = [call for kind in kinds for call in kind(OF_EACH_KIND)]
    calls = [loop_threads(kind).start(all_at_once, many) for kind in KINDS]
    count = len(calls) * len(many)
    wait_until(lambda: len(calls_under_way()) == count)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: calls_under_way() == ["the launch of its service"] * count)
    come_back.set()
    for each in calls:
        each.result(LONG)
    assert runs == dict.fromkeys(("hashserver", "database"), 2 + FAILING_RUNS)
    assert not {cluster.service_pid(tool) for tool in ("hashserver", "database")} & {*killed}
