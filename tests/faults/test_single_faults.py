"""One fault between client and service: a call survives it once, and fails in time if it stays."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from functools import partial

import pytest
from fault_proxy import Fault, FaultProxy, Harm, Toward
from nursery_runs import BACKENDS, HURRIED, in_nursery, patience
from request_kinds import KINDS, use
from services import Service

from seamless_remote import Settings, buffer_remote
from seamless_remote.errors import RemoteError, ServiceError

ASKED = [
    "get_buffer",
    "copy_buffer",
    "get_buffer_lengths",
    "promise",
    "write_buffer, small",
    "write_buffer, after the body",
    "get_transformation_result",
    "set_transformation_result",
    "set_bucket_probe",
]

CASES = [*zip(ASKED, itertools.cycle(BACKENDS))]
"""Each on one of the backends: half of them on asyncio, half on trio."""

BREAKS = (Harm.CUT, Harm.RESET, Harm.STALL)

POSITIONS = (0, 10, 100)
"""At once, in the first line, and in the head: an answer of any kind is longer than that."""

TWO_TRIES = Settings(max_tries=2, grace_period=0.5)
SOON_TRIED_AGAIN = Settings(read_timeout=0.3, grace_period=0.5)
"""With more tries than one is needed: a busy machine may also take its 0.3 s."""

Start = Callable[[Service], FaultProxy]


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_a_broken_exchange_is_made_again(
    name: str, backend: str, shared_hashserver: Service, shared_database: Service, faulty: Start
) -> None:
    kind = KINDS[name]
    proxy = faulty(shared_hashserver if kind.module is buffer_remote else shared_database)

    async def body(harm: Harm) -> None:
        use(kind.module, proxy.url)
        for toward in Toward:
            for at in POSITIONS:
                with patience():
                    call = await kind.prepare()
                proxy.put(Fault(harm, toward, at))
                assert kind.right(await call()), f"{harm} {toward} at {at}"
                proxy.put(None)

    for harm in BREAKS:
        settings = SOON_TRIED_AGAIN if harm is Harm.STALL else TWO_TRIES
        in_nursery(backend, settings, partial(body, harm))


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_a_fault_that_stays_is_an_error_and_harms_no_later_call(
    name: str, backend: str, shared_hashserver: Service, shared_database: Service, faulty: Start
) -> None:
    kind = KINDS[name]
    proxy = faulty(shared_hashserver if kind.module is buffer_remote else shared_database)

    async def body() -> None:
        use(kind.module, proxy.url)
        with patience():
            call = await kind.prepare()
        for harm in BREAKS:
            for toward in Toward:
                proxy.put(Fault(harm, toward, times=99))
                with pytest.raises(ServiceError, match=proxy.url):
                    await call()
                proxy.put(None)
                with patience():
                    assert kind.right(await call()), f"{harm} {toward}"
        proxy.refuse()
        with pytest.raises(ServiceError, match=proxy.url):
            await call()
        proxy.heal()
        with patience():
            assert kind.right(await call())

    in_nursery(backend, HURRIED, body)


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_a_slow_line_only_takes_longer(
    name: str, backend: str, shared_hashserver: Service, shared_database: Service, faulty: Start
) -> None:
    kind = KINDS[name]
    proxy = faulty(shared_hashserver if kind.module is buffer_remote else shared_database)

    async def body() -> None:
        use(kind.module, proxy.url)
        for toward in Toward:
            for fault in (
                # A ping may meet a fault first: hence more than once.
                Fault(Harm.DELAY, toward, seconds=0.1, times=3),
                Fault(Harm.THROTTLE, toward, seconds=0.03, step=60, times=3),
            ):
                if fault.harm is Harm.THROTTLE and "_buffer" in name and "lengths" not in name:
                    continue  # at that pace, these would take minutes
                call = await kind.prepare()
                proxy.put(fault)
                started = time.monotonic()
                assert kind.right(await call())
                assert time.monotonic() - started > 0.9 * fault.seconds
                proxy.put(None)

    in_nursery(backend, TWO_TRIES, body)


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_a_flipped_bit_in_an_answer_is_never_taken_for_another_answer(
    name: str, backend: str, shared_hashserver: Service, shared_database: Service, faulty: Start
) -> None:
    kind = KINDS[name]
    proxy = faulty(shared_hashserver if kind.module is buffer_remote else shared_database)

    async def body() -> None:
        use(kind.module, proxy.url)
        with patience():
            call = await kind.prepare()
        for at in range(0, 240, 6):
            proxy.put(Fault(Harm.CORRUPT, Toward.CLIENT, at, times=99))
            try:
                outcome = await call()
            except RemoteError:
                pass
            else:
                assert outcome in kind.nothing_known or kind.right(outcome), at
            proxy.put(None)
            with patience():
                assert kind.right(await call())

    in_nursery(backend, HURRIED, body)
