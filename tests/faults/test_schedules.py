"""Drawn schedules of operations and faults: what was confirmed is there, what is returned is right.

`make test` draws 60 schedules, half of them on each backend; more of them are a line like

    FAULT_SCHEDULES=10000 python -m pytest tests/faults -k schedule -n 2

They are drawn in chunks, the same ones each time; `FAULT_SEED=5` draws others.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from fault_proxy import FaultProxy
from fault_schedules import CONTENTS, TRANSFORMATIONS, Model, Step, schedules
from hypothesis import HealthCheck, given, seed, settings
from nursery_runs import BACKENDS, in_nursery
from request_kinds import use
from seamless import Buffer, Checksum
from services import Service

from seamless_remote import Settings, buffer_remote, database_remote
from seamless_remote.errors import RemoteError

SCHEDULES = int(os.environ.get("FAULT_SCHEDULES", "60"))
SEED = int(os.environ.get("FAULT_SEED", "0"))

CHUNK = 250
"""So many schedules make one test: half a minute, and a unit of work for pytest-xdist."""

CHUNKS = math.ceil(SCHEDULES / len(BACKENDS) / CHUNK)

IMPATIENT = Settings(
    connect_timeout=0.5,
    read_timeout=0.25,
    healthcheck_timeout=0.25,
    total_timeout=1.5,
    max_tries=2,
    grace_period=0.5,
)
SLACK = 2.0
"""Seconds that a busy machine may take on top of the total timeout."""

HEALING = 10.0
"""Seconds after which a service that is well again is used again, at the latest."""

_numbers = itertools.count()


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("backend", BACKENDS)
def test_whatever_the_schedule_every_promise_is_kept(
    backend: str,
    chunk: int,
    shared_hashserver: Service,
    shared_database: Service,
    faulty: Callable[[Service], FaultProxy],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    buffers, database = faulty(shared_hashserver), faulty(shared_database)

    print(f"chunk {chunk} of FAULT_SCHEDULES={SCHEDULES} FAULT_SEED={SEED}")

    @seed(SEED * 1_000_000 + chunk)
    @settings(
        max_examples=math.ceil(SCHEDULES / len(BACKENDS) / CHUNKS),
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(schedules())
    def check(schedule: list[Step]) -> None:
        run = Run(buffers, database, shared_hashserver)
        in_nursery(backend, IMPATIENT, lambda: run.play(schedule))
        assert not buffers.clients() + database.clients(), "connections outlived their nursery"

    check()


def _repeated(started: float) -> bool:
    """Whether a call that began then may have made its request twice."""
    return time.monotonic() - started >= (IMPATIENT.read_timeout or 0)


class Run:
    """One schedule, played with a model of its own on services that others use as well."""

    def __init__(self, buffers: FaultProxy, database: FaultProxy, hashserver: Service) -> None:
        self._proxies = (buffers, database)
        self._hashserver = hashserver
        self._model = Model(next(_numbers))

    async def play(self, schedule: list[Step]) -> None:
        buffers, database = self._proxies
        use(buffer_remote, buffers.url)
        use(database_remote, database.url)
        try:
            for step in schedule:
                buffers.put(step.buffer_fault)
                database.put(step.database_fault)
                if step.refused:
                    buffers.refuse()
                    database.refuse()
                await self._take(step)
                if step.refused:
                    buffers.heal()
                    database.heal()
        finally:
            for proxy in self._proxies:
                proxy.heal()
        self._check_what_is_stored()
        await self._check_what_is_found()

    async def _take(self, step: Step) -> None:
        operation = getattr(self, f"_{step.operation.replace(' ', '_')}")
        async with anyio.create_task_group() as group:
            for number in range(step.together):
                group.start_soon(operation, step.subject + number, step.result)

    async def _outcome_of(self, call: Awaitable[Any]) -> tuple[bool, Any]:
        """Whether a call succeeded, and with what; any failure must be a typed one, in time."""
        started = time.monotonic()
        try:
            return True, await call
        except RemoteError:
            return False, None
        finally:
            took = time.monotonic() - started
            assert took < (IMPATIENT.total_timeout or 0) + SLACK, f"a call took {took:.1f} s"

    async def _write(self, subject: int, _: int) -> None:
        subject %= CONTENTS
        model = self._model
        model.maybe_written.add(subject)
        content = Buffer(model.content(subject))
        checksum = model.checksum(subject)
        done, outcome = await self._outcome_of(buffer_remote.write_buffer(checksum, content))
        if done:
            assert outcome is True
            model.written.add(subject)

    async def _get(self, subject: int, _: int) -> None:
        subject %= CONTENTS
        call = buffer_remote.get_buffer(self._model.checksum(subject))
        done, buffer = await self._outcome_of(call)
        # Bytes that were corrupted on their way are passed over, like a wrong file.
        if done and buffer is not None:
            assert self._model.fault_of_buffer(subject, buffer.content) is None

    async def _lengths(self, subject: int, _: int) -> None:
        model = self._model
        asked = [each % CONTENTS for each in range(subject, subject + 3)]
        call = buffer_remote.get_buffer_lengths([model.checksum(each) for each in asked])
        written = set(model.written)
        done, lengths = await self._outcome_of(call)
        if done:
            for each, length in zip(asked, lengths, strict=True):
                right = len(model.content(each))
                assert length == right or (length is None and each not in written)
                assert length is None or each in model.maybe_written

    async def _promise(self, subject: int, _: int) -> None:
        call = buffer_remote.promise(self._model.checksum(subject % CONTENTS))
        await self._outcome_of(call)

    async def _set(self, subject: int, result: int) -> None:
        model = self._model
        possible = model.result_of(subject)
        possible.begin(result)
        tf, value = model.tf(subject), model.result(result)
        started = time.monotonic()
        call = database_remote.set_transformation_result(tf, value)
        done, outcome = await self._outcome_of(call)
        if done:
            assert outcome is True
            possible.confirm(result, repeated=_repeated(started))

    async def _look_up(self, subject: int, _: int) -> None:
        model = self._model
        call = database_remote.get_transformation_result(model.tf(subject))
        done, found = await self._outcome_of(call)
        if done:
            self._check_result(subject, found)

    async def _reverse(self, _: int, result: int) -> None:
        model = self._model
        call = database_remote.get_rev_transformations(model.result(result))
        done, found = await self._outcome_of(call)
        if done and found is not None:
            assert len(set(found)) == len(found)
            assert set(found) <= {model.tf(each) for each in range(TRANSFORMATIONS)}

    async def _undo(self, subject: int, result: int) -> None:
        model = self._model
        possible = model.result_of(subject)
        before = set(possible.values())
        possible.begin(None)
        started = time.monotonic()
        call = database_remote.undo_transformation_result(model.tf(subject), model.result(result))
        done, outcome = await self._outcome_of(call)
        if not done:
            return
        if outcome:
            # The database takes note as well where there is no result at all.
            assert before & {result, None}
            possible.confirm(None, repeated=_repeated(started))
        else:
            assert before - {result, None}, "the result that was there is not known"
            possible.refuse(None)

    def _check_result(self, subject: int, found: Checksum | None) -> None:
        model = self._model
        possible = model.result_of(subject).values()
        texts = {None if each is None else model.result(each).hex() for each in possible}
        assert (None if found is None else found.hex()) in texts

    def _check_what_is_stored(self) -> None:
        """What was confirmed is on the service's disk."""
        for subject in self._model.written:
            name = self._model.checksum(subject).hex()
            path = self._hashserver.directory / name[:2] / name
            assert path.read_bytes() == self._model.content(subject)

    async def _check_what_is_found(self) -> None:
        """Services that are well again are used again, and have what was confirmed."""
        model = self._model
        for subject in model.written:
            checksum = model.checksum(subject)
            buffer = await self._healed(
                lambda checksum=checksum: buffer_remote.get_buffer(checksum)
            )
            assert buffer is not None
            assert buffer.content == model.content(subject)
        for subject in range(TRANSFORMATIONS):
            tf = model.tf(subject)
            found = await self._healed(lambda tf=tf: database_remote.get_transformation_result(tf))
            self._check_result(subject, found)

    async def _healed(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """The outcome of a call to a service that is well; it may take a moment to be noticed."""
        deadline = time.monotonic() + HEALING
        while True:
            try:
                return await call()
            except RemoteError:
                if time.monotonic() > deadline:
                    raise
                await anyio.sleep(0.05)
