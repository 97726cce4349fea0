"""Where the load comes from: the nursery's own loop, loops beside it, and loops that are short.

Each caller is a thread with customers in it. All make a pause when the soak is to be measured.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import anyio
import trio

import seamless_remote
from seamless_remote import Settings

from .customer import Customer
from .operations import JOB, OPERATIONS, Operation
from .tally import CALM_PHASES, CANCELLED, Tally

PAUSE = 0.12
"""Seconds on average between two operations of a customer."""

LOOK = 0.05
"""Seconds between two looks at whether a pause is over."""

CANCELLED_SHARE = 0.02
"""So many of the calls are cancelled by their callers, within half a second."""

KEEPALIVE = 1.0
IDLE_LIFETIME = 5.0


class Gate:
    """Lets callers work, has them pause, or ends them."""

    def __init__(self) -> None:
        self.open = False
        self.ended = False


@dataclass
class Caller:
    """A thread that calls: `main` runs in it, until the gate has ended.

    `loop` is its event loop, or trio's root task, as long as it has a lasting one; `call_soon` has
    something called in it, from any thread.
    """

    name: str
    customers: Sequence[Customer]
    gate: Gate
    main: Callable[[Caller], None]
    orders_jobs: bool = False
    loop: Any = None
    call_soon: Callable[..., object] | None = None
    failure: BaseException | None = None

    def start(self) -> None:
        self.thread = threading.Thread(target=self._run, name=f"soak {self.name}", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.main(self)
        except BaseException as exc:
            self.failure = exc

    async def serve(self) -> None:
        """Let all customers work in the running loop."""
        self.loop, self.call_soon = _running_loop()
        try:
            async with anyio.create_task_group() as task_group:
                for customer in self.customers:
                    task_group.start_soon(self._work, customer)
        finally:
            self.loop = self.call_soon = None

    def block(self, seconds: float) -> None:
        """Keep the loop from turning for a while, as a host does that computes in it."""
        if self.call_soon is not None:
            self.call_soon(time.sleep, seconds)

    async def _work(self, customer: Customer) -> None:
        while not self.gate.ended:
            if self.gate.open:
                await one_operation(customer, jobs=self.orders_jobs)
                await anyio.sleep(customer.draw.expovariate(1 / PAUSE))
            else:
                await anyio.sleep(LOOK)


async def one_operation(customer: Customer, *, jobs: bool = False) -> None:
    """One operation that the customer draws, cancelled now and then while all is disturbed."""
    operation = _drawn(customer, jobs)
    tally: Tally = customer.tally
    impatient = tally.phase not in CALM_PHASES and customer.draw.random() < CANCELLED_SHARE
    patience = customer.draw.uniform(0, 0.5) if impatient else None
    with tally.call(operation.kind, customer.name, operation.deadline) as call:
        with anyio.move_on_after(patience) as scope:
            await operation.run(customer)
        if scope.cancelled_caught:
            call.outcome = CANCELLED


def _drawn(customer: Customer, jobs: bool) -> Operation:
    known = [*OPERATIONS, JOB] if jobs else OPERATIONS
    return customer.draw.choices(known, [each.weight for each in known])[0]


def _running_loop() -> tuple[Any, Callable[..., object]]:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        token = trio.lowlevel.current_trio_token()
        return trio.lowlevel.current_root_task(), token.run_sync_soon
    return loop, loop.call_soon_threadsafe


# The mains of callers.


def host(backend: str, prepare: Callable[[], None]) -> Callable[[Caller], None]:
    """The loop of the nursery: a host's on `backend`, or one beside a hosted nursery.

    `prepare` is called in it before the first operation.
    """

    async def serve(caller: Caller) -> None:
        async with AsyncExitStack() as stack:
            if backend != "hosted":
                settings = replace(
                    Settings.from_environment(),
                    keepalive_interval=KEEPALIVE,
                    idle_connection_lifetime=IDLE_LIFETIME,
                )
                await stack.enter_async_context(seamless_remote.open_nursery(settings))
            prepare()
            await caller.serve()

    return lambda caller: anyio.run(
        serve, caller, backend="asyncio" if backend == "hosted" else backend
    )


def beside(caller: Caller) -> None:
    """A lasting asyncio loop that is not the nursery's."""
    asyncio.run(caller.serve())


def synchronous(caller: Caller) -> None:
    """One call after the other, an `asyncio.run` each."""
    (customer,) = caller.customers
    _repeat(caller, customer, lambda: one_operation(customer))


def short_lived(caller: Caller) -> None:
    """Loops that end after a few calls at once."""

    async def all_at_once() -> None:
        await asyncio.gather(*(one_operation(customer) for customer in caller.customers))

    _repeat(caller, caller.customers[0], all_at_once)


def _repeat(caller: Caller, customer: Customer, work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    while not caller.gate.ended:
        if caller.gate.open:
            asyncio.run(main())
            time.sleep(customer.draw.expovariate(1 / PAUSE))
        else:
            time.sleep(LOOK)
