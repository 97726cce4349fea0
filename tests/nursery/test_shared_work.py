"""Work that several tasks of a loop ask for is done once, and goes on whoever is cancelled."""

from __future__ import annotations

import asyncio
import traceback
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from loops import DROPPED, KINDS, ON_ASYNCIO, Dropped, LoopThread
from signals import LONG

from seamless_remote import Settings
from seamless_remote.nursery.calls import Call
from seamless_remote.nursery.event_loops import running_loop
from seamless_remote.nursery.shared_work import SharedWork

Loops = Callable[[str], LoopThread]


class Work:
    """Work in steps, each of which waits until it may be done. It goes on from where it stands."""

    def __init__(self, *steps: anyio.Event) -> None:
        self.steps = list(steps)
        self.made = 0
        self.runs = 0
        self.drivers: list[Call] = []
        self.may_clean_up = anyio.Event()
        self.may_clean_up.set()

    def make(self) -> Callable[[Call], Awaitable[str]]:
        self.made += 1
        return self.run

    async def run(self, call: Call) -> str:
        self.runs += 1
        self.drivers.append(call)
        try:
            while self.steps:
                await self.steps[0].wait()
                self.steps.pop(0)
        finally:
            with anyio.CancelScope(shield=True):
                await self.may_clean_up.wait()
        return "outcome"


class Asking:
    """Tasks that ask for shared work, and what they get."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self.shared = SharedWork()
        self.answers: list[str] = []
        self._tasks = tasks

    async def start(self, work: Work, key: object = "key") -> anyio.CancelScope:
        """Begin to ask, and come to a stand. Cancelling the scope cancels the one who asks."""
        scope = anyio.CancelScope()

        async def ask() -> None:
            with scope:
                self.answers.append(await ask_for(self.shared, work, key))

        self._tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        return scope


async def ask_for(shared: SharedWork, work: Work, key: object = "key") -> str:
    call = Call(running_loop(), Settings())
    return await shared.join(call, key, work.make, "another one")


def event(*, is_set: bool = False) -> anyio.Event:
    made = anyio.Event()
    if is_set:
        made.set()
    return made


@pytest.mark.anyio
async def test_many_who_ask_for_the_same_in_one_loop_share_one_piece_of_work() -> None:
    go = event()
    work = Work(go)
    async with anyio.create_task_group() as tasks:
        asking = Asking(tasks)
        for _ in range(20):
            await asking.start(work)
        go.set()
    assert asking.answers == 20 * ["outcome"]
    assert (work.made, work.runs) == (1, 1)
    assert not asking.shared._pieces


@pytest.mark.anyio
async def test_different_keys_are_different_work_and_the_same_key_later_is_new_work() -> None:
    work = Work()
    shared = SharedWork()
    for key in ("one", "other", "one"):
        assert await ask_for(shared, work, key) == "outcome"
    assert work.made == 3


@pytest.mark.parametrize("kind", KINDS)
def test_each_loop_does_its_own_work(loop_threads: Loops, kind: str) -> None:
    shared = SharedWork()
    threads = [loop_threads(each) for each in (kind, "asyncio", kind)]

    def prepare() -> tuple[Work, anyio.Event]:
        go = event()
        return Work(go), go

    works, goes = zip(*(thread.run(prepare) for thread in threads), strict=True)
    asks = [
        thread.start(ask_for, shared, work)
        for _ in range(3)
        for thread, work in zip(threads, works, strict=True)
    ]
    for thread, go in zip(threads, goes, strict=True):
        thread.settle()
        thread.run(go.set)
    assert [each.result(LONG) for each in asks] == 9 * ["outcome"]
    assert [(work.made, work.runs) for work in works] == 3 * [(1, 1)]


@pytest.mark.anyio
async def test_one_who_waits_says_what_for() -> None:
    go = event()
    call = Call(running_loop(), Settings())
    async with anyio.create_task_group() as tasks:
        asking = Asking(tasks)
        work = Work(go)
        await asking.start(work)
        tasks.start_soon(asking.shared.join, call, "key", work.make, "another one")
        await anyio.wait_all_tasks_blocked()
        assert call.waits_for == "another one"
        go.set()


@pytest.mark.anyio
async def test_cancelling_one_who_waits_leaves_the_others_their_outcome() -> None:
    go = event()
    work = Work(go)
    async with anyio.create_task_group() as tasks:
        asking = Asking(tasks)
        await asking.start(work)
        waiting = [await asking.start(work) for _ in range(3)]
        waiting[1].cancel()
        await anyio.wait_all_tasks_blocked()
        go.set()
    assert asking.answers == 3 * ["outcome"]
    assert work.runs == 1


@pytest.mark.anyio
async def test_when_the_driver_is_cancelled_the_next_one_drives_on_from_where_the_work_stands() -> (
    None
):
    steps = [event(is_set=True), event(), event()]
    work = Work(*steps)
    async with anyio.create_task_group() as tasks:
        asking = Asking(tasks)
        scopes = [await asking.start(work) for _ in range(4)]
        assert len(work.steps) == 2
        scopes[0].cancel()
        await anyio.wait_all_tasks_blocked()
        assert (work.runs, len(work.steps)) == (2, 2)
        steps[1].set()
        await anyio.wait_all_tasks_blocked()
        scopes[1].cancel()
        await anyio.wait_all_tasks_blocked()
        assert (work.runs, len(work.steps)) == (3, 1)
        steps[2].set()
    assert asking.answers == 2 * ["outcome"]
    assert work.made == 1
    assert len(set(work.drivers)) == 3  # each drives with a call of its own


@pytest.mark.anyio
async def test_one_who_is_cancelled_just_when_it_is_to_drive_hands_the_work_on_again() -> None:
    go = event()
    work = Work(go)
    async with anyio.create_task_group() as tasks:
        asking = Asking(tasks)
        scopes = [await asking.start(work) for _ in range(4)]
        # The first wakes the second in its cleanup; that one may have been cancelled by then, or
        # is cancelled before it comes to drive.
        for scope in scopes[:3]:
            scope.cancel()
        await anyio.wait_all_tasks_blocked()
        go.set()
    assert asking.answers == ["outcome"]
    assert len(work.drivers) <= 3
    assert not asking.shared._pieces


@pytest.mark.anyio
@ON_ASYNCIO  # what trio has woken, it does not cancel before it has gone on
async def test_one_who_has_been_woken_to_drive_and_is_cancelled_then_hands_the_work_on_again() -> (
    None
):
    go = event()
    work = Work(go)
    shared = SharedWork()
    waiting: list[asyncio.Task[str]] = []

    async def drive() -> None:
        try:
            await ask_for(shared, work)
        finally:
            waiting[0].cancel()  # it was woken, and has not gone on yet

    driver = asyncio.ensure_future(drive())
    await anyio.wait_all_tasks_blocked()
    for _ in range(2):
        waiting.append(asyncio.ensure_future(ask_for(shared, work)))
        await anyio.wait_all_tasks_blocked()
    driver.cancel()
    await anyio.wait_all_tasks_blocked()
    assert driver.cancelled()
    assert waiting[0].cancelled()
    go.set()
    with anyio.fail_after(LONG):
        assert await waiting[1] == "outcome"
    assert work.runs == 2
    assert not shared._pieces


@pytest.mark.anyio
async def test_when_all_are_cancelled_the_work_is_given_up_and_the_next_one_begins_anew() -> None:
    go = event()
    work = Work(go)
    async with anyio.create_task_group() as tasks:
        asking = Asking(tasks)
        for scope in [await asking.start(work) for _ in range(3)]:
            scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert not asking.shared._pieces
        await asking.start(work)
        assert work.made == 2
        go.set()
    assert asking.answers == ["outcome"]


@pytest.mark.anyio
async def test_one_who_asks_while_a_cancelled_driver_cleans_up_drives_on_after_that() -> None:
    go = event()
    work = Work(go)
    work.may_clean_up = anyio.Event()
    async with anyio.create_task_group() as tasks:
        asking = Asking(tasks)
        (await asking.start(work)).cancel()
        await anyio.wait_all_tasks_blocked()
        await asking.start(work)
        assert work.runs == 1
        work.may_clean_up.set()
        await anyio.wait_all_tasks_blocked()
        assert work.runs == 2
        go.set()
    assert asking.answers == ["outcome"]
    assert work.made == 1


@pytest.mark.anyio
async def test_an_error_reaches_all_each_with_the_frames_of_its_own_way() -> None:
    may_fail = event()
    shared = SharedWork()
    frames: list[list[str]] = []

    async def fail(call: Call) -> None:
        await may_fail.wait()
        raise LookupError("on purpose")

    async def ask() -> None:
        try:
            await shared.join(Call(running_loop(), Settings()), "key", lambda: fail, "another one")
        except LookupError as exc:
            frames.append([frame.name for frame in traceback.extract_tb(exc.__traceback__)])

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        may_fail.set()
    assert len(frames) == 10
    for names in frames:
        assert names.count("ask") == 1
        assert names.count("fail") == 1
    assert len({len(names) for names in frames[1:]}) == 1
    with pytest.raises(LookupError):
        await shared.join(Call(running_loop(), Settings()), "key", lambda: fail, "another one")


@DROPPED
def test_a_loop_that_is_dropped_leaves_nothing_of_its_work(kind: str, closed: bool) -> None:
    shared = SharedWork()
    dropped = Dropped(kind)
    begun: list[bool] = []

    async def ask() -> None:
        here = running_loop()

        async def never(call: Call) -> None:
            begun.append(here is call.loop)  # the work refers to its loop
            await here.create_future()

        await shared.join(Call(here, Settings()), "key", lambda: never, "another one")

    dropped.begin(ask, ask, ask)
    assert begun == [True]
    loop: Any = weakref.ref(dropped.loop)
    if closed:
        dropped.close()
    dropped.collect()
    assert loop() is None
    assert not shared._pieces
