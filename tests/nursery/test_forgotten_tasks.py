"""A task that nobody refers to is not collected while it waits, as long as its loop goes on."""

from __future__ import annotations

import asyncio
import gc

import pytest

from seamless_remote.nursery.bound import Bound
from seamless_remote.nursery.event_loops import running_loop


def new_uvloop() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
    return loop


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, new_uvloop])
def test_a_forgotten_task_gets_its_place(new_loop: type[asyncio.AbstractEventLoop]) -> None:
    done: list[str] = []

    async def main() -> None:
        bound = Bound(1)
        loop = running_loop()
        first = bound.take_now(loop)
        assert first is not None

        async def wait() -> None:
            share = await bound.take(loop)
            done.append("came")
            bound.give_back(share)

        loop.create_task(wait())
        await asyncio.sleep(0)
        gc.collect()
        assert bound.snapshot().waiting == 1
        bound.give_back(first)
        while not done:  # noqa: ASYNC110 - some turns of the loop
            await asyncio.sleep(0)

    loop = new_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    assert done == ["came"]
