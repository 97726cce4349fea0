"""Where the load comes from: the host's loop, loops beside it, and loops that are short.

Each caller is a thread with customers in it. All pause when the soak is to be measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import anyio

from seamless_remote import Settings, open_nursery

from .customer import Customer
from .operations import JOB, OPERATIONS
from .tally import CANCELLED

PAUSE = 0.12  # seconds on average between two operations of a customer
LOOK = 0.05  # seconds between two looks at what is wanted
CANCELLED_SHARE = 0.02  # of the calls: their callers cancel them within half a second


@dataclass
class Gate:
    """Lets callers work, has them pause, or ends them."""

    open: bool = False
    ended: bool = False


@dataclass
class Caller:
    """A thread that calls: `main` runs in it until the gate has ended.

    `tasks` is how many are in its lasting event loop, if it has one. The loop stands still for
    `standstill` seconds when that is set, as where a host computes in it.
    """

    name: str
    customers: Sequence[Customer]
    gate: Gate
    main: Callable[[Caller], None]
    orders_jobs: bool = False
    tasks: int = 0
    standstill: float = 0.0

    async def serve(self) -> None:
        """Let all customers work in the running loop."""
        async with anyio.create_task_group() as task_group:
            for customer in self.customers:
                task_group.start_soon(self._work, customer)
            while not self.gate.ended:
                self.tasks = len(anyio.get_running_tasks())
                seconds, self.standstill = self.standstill, 0.0
                time.sleep(seconds)
                await anyio.sleep(LOOK)

    async def _work(self, customer: Customer) -> None:
        while not self.gate.ended:
            if self.gate.open:
                await one_operation(customer, jobs=self.orders_jobs)
                await anyio.sleep(customer.draw.expovariate(1 / PAUSE))
            else:
                await anyio.sleep(LOOK)


async def one_operation(customer: Customer, *, jobs: bool = False) -> None:
    """One operation that the customer draws, cancelled now and then while all is disturbed."""
    draw, tally = customer.draw, customer.tally
    known = [*OPERATIONS, JOB] if jobs else OPERATIONS
    (operation,) = draw.choices(known, [each.weight for each in known])
    impatient = not tally.calm and draw.random() < CANCELLED_SHARE
    with tally.call(operation.kind, customer.name, operation.deadline) as call:
        with anyio.move_on_after(draw.uniform(0, 0.5) if impatient else None) as scope:
            await operation.run(customer)
        if scope.cancelled_caught:
            call.outcome = CANCELLED


def host(backend: str, prepare: Callable[[], None]) -> Callable[[Caller], None]:
    """The loop of the nursery: a host's on `backend`, or one beside a hosted nursery.

    `prepare` is called in it before the first operation.
    """

    async def serve(caller: Caller) -> None:
        settings = replace(
            Settings.from_environment(), keepalive_interval=1.0, idle_connection_lifetime=5.0
        )
        async with nullcontext() if backend == "hosted" else open_nursery(settings):
            prepare()
            await caller.serve()

    loop = "asyncio" if backend == "hosted" else backend
    return lambda caller: anyio.run(serve, caller, backend=loop)


def beside(caller: Caller) -> None:
    """A lasting asyncio loop that is not the nursery's."""
    asyncio.run(caller.serve())


def short_lived(caller: Caller) -> None:
    """Loops that end after one call of each customer; with one customer, a synchronous program."""

    async def all_at_once() -> None:
        await asyncio.gather(*map(one_operation, caller.customers))

    while not caller.gate.ended:
        if caller.gate.open:
            asyncio.run(all_at_once())
            time.sleep(caller.customers[0].draw.expovariate(1 / PAUSE))
        else:
            time.sleep(LOOK)
