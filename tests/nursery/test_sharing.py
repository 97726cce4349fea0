"""Work that several ask for at once is done once, and ends when nobody waits for it any more."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable

import anyio
import pytest

from seamless_remote.nursery.shared_work import SharedWork


class Work:
    """Work that waits until it may end, and counts how often it is begun and cancelled."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.may_end = anyio.Event()
        self.may_clean_up = anyio.Event()
        self.may_clean_up.set()

    async def __call__(self) -> str:
        self.begun += 1
        try:
            await self.may_end.wait()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self.may_clean_up.wait()
            self.cancelled += 1
            raise
        return "outcome"


async def cancellable(scope: anyio.CancelScope, ask: Callable[[], Awaitable[object]]) -> None:
    with scope:
        await ask()


@pytest.mark.anyio
async def test_many_who_ask_for_the_same_share_one_piece_of_work() -> None:
    work = Work()
    answers: list[str] = []

    async with anyio.create_task_group() as tasks:
        shared = SharedWork(tasks)

        async def ask() -> None:
            answers.append(await shared.join("key", work))

        for _ in range(20):
            tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        work.may_end.set()
    assert answers == 20 * ["outcome"]
    assert work.begun == 1


@pytest.mark.anyio
async def test_different_keys_are_different_work_and_the_same_key_later_is_new_work() -> None:
    work = Work()
    work.may_end.set()
    async with anyio.create_task_group() as tasks:
        shared = SharedWork(tasks)
        for key in ("one", "other", "one"):
            assert await shared.join(key, work) == "outcome"
    assert work.begun == 3


@pytest.mark.anyio
async def test_cancelling_one_who_waits_leaves_the_others_their_outcome() -> None:
    work = Work()
    answers: list[str] = []
    async with anyio.create_task_group() as tasks:
        shared = SharedWork(tasks)

        async def ask() -> None:
            answers.append(await shared.join("key", work))

        first = anyio.CancelScope()
        tasks.start_soon(cancellable, first, ask)
        for _ in range(2):
            tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        first.cancel()
        await anyio.wait_all_tasks_blocked()
        work.may_end.set()
    assert answers == 2 * ["outcome"]
    assert (work.begun, work.cancelled) == (1, 0)


@pytest.mark.anyio
async def test_cancelling_the_last_one_cancels_the_work_and_waits_for_its_clean_up() -> None:
    work = Work()
    work.may_clean_up = anyio.Event()
    left = anyio.Event()
    async with anyio.create_task_group() as tasks:
        shared = SharedWork(tasks)
        scope = anyio.CancelScope()

        async def ask() -> None:
            try:
                await shared.join("key", work)
            finally:
                left.set()

        tasks.start_soon(cancellable, scope, ask)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        left_too_early = left.is_set()
        work.may_clean_up.set()
        work.may_end.set()
    assert not left_too_early
    assert left.is_set()
    assert work.cancelled == 1


@pytest.mark.anyio
async def test_who_asks_while_cancelled_work_cleans_up_gets_work_of_its_own() -> None:
    dying, fresh = Work(), Work()
    dying.may_clean_up = anyio.Event()
    fresh.may_end.set()
    answers: list[str] = []

    async with anyio.create_task_group() as tasks:
        shared = SharedWork(tasks)
        scope = anyio.CancelScope()

        async def ask() -> None:
            answers.append(await shared.join("key", fresh))

        tasks.start_soon(cancellable, scope, lambda: shared.join("key", dying))
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        answers_during_the_clean_up = list(answers)
        dying.may_clean_up.set()
    assert answers_during_the_clean_up == ["outcome"]
    assert (dying.cancelled, fresh.cancelled) == (1, 0)


@pytest.mark.anyio
async def test_an_error_reaches_all_who_wait_each_with_a_traceback_of_its_own_length() -> None:
    lengths: list[int] = []
    may_fail = anyio.Event()

    async def fail() -> None:
        await may_fail.wait()
        raise LookupError("on purpose")

    async with anyio.create_task_group() as tasks:
        shared = SharedWork(tasks)

        async def ask() -> None:
            try:
                await shared.join("key", fail)
            except LookupError as exc:
                lengths.append(len(traceback.extract_tb(exc.__traceback__)))

        for _ in range(10):
            tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        may_fail.set()
    assert len(lengths) == 10
    assert len(set(lengths)) == 1
