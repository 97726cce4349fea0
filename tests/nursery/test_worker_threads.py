"""Work in worker threads: a cancellation waits for it, and nothing is left of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.lowlevel
import pytest
import trio
from loops import ON_ASYNCIO
from signals import LONG, Signal, until

from seamless_remote.buffers import worker_threads
from seamless_remote.buffers.worker_threads import (
    OFFLOAD_BYTES,
    SideThread,
    offload,
    offload_large,
)


class Work:
    """Work that waits until it may end."""

    def __init__(self) -> None:
        self.begun = Signal()
        self.may_end = threading.Event()
        self.ended = Signal()

    def __call__(self) -> int:
        self.begun.set()
        assert self.may_end.wait(LONG)
        self.ended.set()
        return threading.get_ident()


def fail() -> None:
    raise LookupError("on purpose")


@pytest.mark.anyio
async def test_work_is_done_in_another_thread_and_its_error_comes_out() -> None:
    assert await offload(threading.get_ident) != threading.get_ident()
    assert await offload(divmod, 7, 2) == (3, 1)
    with pytest.raises(LookupError, match="on purpose"):
        await offload(fail)


@pytest.mark.anyio
async def test_only_large_work_goes_to_another_thread() -> None:
    assert await offload_large(OFFLOAD_BYTES - 1, threading.get_ident) == threading.get_ident()
    assert await offload_large(OFFLOAD_BYTES, threading.get_ident) != threading.get_ident()


@pytest.mark.anyio
async def test_a_cancelled_task_waits_for_its_work_to_end() -> None:
    work = Work()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(offload, work)
        await until(work.begun)
        tasks.cancel_scope.cancel()
        threading.Timer(0.01, work.may_end.set).start()
    assert work.ended.is_set()


@pytest.mark.anyio
@ON_ASYNCIO
async def test_so_does_a_task_that_is_cancelled_natively_however_often() -> None:
    work = Work()
    task = asyncio.ensure_future(offload(work))
    await until(work.begun)
    for _ in range(3):
        task.cancel()
        await anyio.wait_all_tasks_blocked()
        assert not task.done()
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.ended.is_set()


def test_it_works_in_an_asyncio_loop_inside_a_trio_task() -> None:
    async def main() -> None:
        assert asyncio.run(offload(divmod, 7, 2)) == (3, 1)

    trio.run(main)


def test_while_the_interpreter_exits_work_is_done_all_the_same(
    interpreter: Callable[..., str],
) -> None:
    script = """
import atexit, anyio, logging
from seamless_remote.buffers.worker_threads import SideThread, offload
logging.getLogger("asyncio").setLevel(logging.ERROR)
async def late():
    print(await offload(divmod, 7, 2))
    thread = SideThread()
    await thread.put(print, "beside")
    await thread.finish()
    thread.close()
atexit.register(lambda: anyio.run(late, backend="trio"))
atexit.register(lambda: anyio.run(late, backend="asyncio"))
"""
    assert interpreter(script) == 2 * "(3, 1)\nbeside\n"


@pytest.mark.anyio
async def test_a_cancelled_task_waits_without_turning_its_loop_all_the_time() -> None:
    work = Work()
    turns: list[None] = []

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(offload, work)
        await until(work.begun)
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            waits = worker_threads.outcome_known
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    worker_threads, "outcome_known", lambda f: (turns.append(None), waits(f))[1]
                )
                for _ in range(100):
                    await anyio.lowlevel.checkpoint()
        work.may_end.set()
    assert len(turns) <= 1


# Beside a task.


@pytest.mark.anyio
async def test_a_side_thread_works_while_its_task_goes_on_one_thing_after_the_other() -> None:
    thread = SideThread()
    done: list[int] = []
    work = Work()
    await thread.put(work)
    await until(work.begun)
    work.may_end.set()
    for number in range(20):
        await thread.put(done.append, number)
    await thread.finish()
    assert done == list(range(20))
    await thread.finish()
    thread.close()


@pytest.mark.anyio
async def test_an_error_of_a_side_thread_comes_out_at_the_next_step() -> None:
    thread = SideThread()
    await thread.put(fail)
    with pytest.raises(LookupError):
        await thread.put(print)
    await thread.put(fail)
    with pytest.raises(LookupError):
        await thread.finish()
    await thread.finish()
    thread.close()


@pytest.mark.anyio
async def test_a_task_that_is_cancelled_while_it_waits_for_its_side_thread_waits_on() -> None:
    work = Work()
    thread = SideThread()

    async def task() -> None:
        await thread.put(work)
        try:
            await thread.finish()
        finally:
            assert work.ended.is_set()
            thread.close()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(task)
        await until(work.begun)
        tasks.cancel_scope.cancel()
        threading.Timer(0.01, work.may_end.set).start()
    assert work.ended.is_set()


@pytest.mark.anyio
@ON_ASYNCIO
async def test_work_waits_for_no_threads_of_its_host() -> None:
    """Seamless runs transformations in the executors of its loops; what they read is read here."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    work = Work()
    busy = loop.run_in_executor(None, work)
    await until(work.begun)
    assert await offload(divmod, 7, 2) == (3, 1)
    work.may_end.set()
    await busy


@pytest.mark.anyio
async def test_more_work_than_threads_is_all_done() -> None:
    count = 3 * worker_threads.MOST_THREADS
    done: list[int] = []
    # Each waits for all the others of its round.
    together = threading.Barrier(worker_threads.MOST_THREADS)

    async def one(number: int) -> None:
        done.append(await offload(together.wait, LONG))

    async with anyio.create_task_group() as task_group:
        for number in range(count):
            task_group.start_soon(one, number)
    assert len(done) == count
