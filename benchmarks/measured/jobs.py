"""Jobs at a stub jobserver: many at once with few and with many descriptors, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import resource
import sys
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import seamless
from meter import Meter, Report
from task import Task, lookup_key, require, result_of
from with_seamless import SeamlessPeer

_WARM_UP = 10
_START_TIMEOUT = 30.0


async def at_once(peer: SeamlessPeer, task: Task) -> Report:
    """`count` jobs at once in one loop, in a process that may open so many `descriptors`.

    Where the system allows fewer, it is as many as it allows. `errors` counts the jobs that did not
    end well, and `waiting_bytes` is the memory for each job while it waits or runs.
    """
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = task["descriptors"]
    if allowed != resource.RLIM_INFINITY:
        descriptors = min(descriptors, allowed)
    # For good: some package that Seamless imports raises a limit that may be raised.
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    reasons: dict[str, int] = {}

    async def failed(key: str) -> bool:
        try:
            result = await peer.run_job(key)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".replace(key, "...")
            reasons[reason] = reasons.get(reason, 0) + 1
            return True
        require(result == result_of(key), "a job's result")
        return False

    count = task["count"]
    warm_up = await peer.gather(failed, [lookup_key(-1 - number) for number in range(_WARM_UP)])
    require(not any(warm_up), f"no job ends well: {reasons}")
    _counts(task)
    with Meter() as meter:
        failures = await peer.gather(failed, [lookup_key(number) for number in range(count)])
    counts = _counts(task)
    print(reasons, file=sys.stderr)
    return meter.report(
        count,
        errors=sum(failures),
        waiting_bytes=meter.grown / count,
        started=counts["started"],
        running_at_once=counts["most"],
        descriptors=descriptors,
    )


def closed(peer: SeamlessPeer, task: Task) -> Report:
    """`seamless.close()` with `count` jobs in flight; `lost` are those not canceled at the stub."""
    count = task["count"]
    keys = [lookup_key(number) for number in range(count)]
    _counts(task)

    async def run(key: str) -> None:
        with contextlib.suppress(Exception, asyncio.CancelledError):
            await peer.run_job(key)

    # A daemon: where closing does not end the jobs, this process still ends.
    running = threading.Thread(target=asyncio.run, args=(peer.gather(run, keys),), daemon=True)
    running.start()
    started, deadline = 0, time.monotonic() + _START_TIMEOUT
    while started < count and time.monotonic() < deadline:
        started += _counts(task)["started"]
        time.sleep(0.01)
    require(started >= count, f"{started} of {count} jobs started")
    with Meter() as meter:
        seamless.close()
    canceled = _counts(task)["canceled"]
    return meter.report(lost=count - canceled)


def _counts(task: Task) -> dict[str, Any]:
    """The stub's counts since this was last called."""
    server = urlsplit(task["jobserver"]).netloc
    with contextlib.closing(http.client.HTTPConnection(server)) as connection:
        connection.request("GET", "/counts")
        counts: dict[str, Any] = json.loads(connection.getresponse().read())
    return counts
