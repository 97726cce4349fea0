"""Answers that make no sense: one typed error in time, and the next call is unharmed."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from fault_proxy import FaultProxy
from malformed_answers import FOR_EVERY_REQUEST
from nursery_runs import BACKENDS, HURRIED, TOTAL, in_nursery, patience
from played_answers import PlayedAnswer
from request_kinds import KINDS, RequestKind, use
from services import Service

from seamless_remote import buffer_remote
from seamless_remote.errors import RemoteError

SLACK = 2.0
"""Seconds that a busy machine may take on top of the timeouts."""

Start = Callable[[Service], FaultProxy]


def bad_answers_to(kind: RequestKind) -> list[PlayedAnswer]:
    """Every answer that is wrong for a request of this kind."""
    found = [*FOR_EVERY_REQUEST, *kind.bad_contents]
    return [each for each in found if each.status is None or not kind.accepts(each.status)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", KINDS)
def test_a_bad_answer_is_one_typed_error_in_time_and_harms_no_later_call(
    backend: str,
    name: str,
    shared_hashserver: Service,
    shared_database: Service,
    faulty: Start,
    tried: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    kind = KINDS[name]
    proxy = faulty(shared_hashserver if kind.module is buffer_remote else shared_database)
    faults = []

    async def body() -> None:
        use(kind.module, proxy.url)
        with patience():
            call = await kind.prepare()
            assert kind.right(await call())
        # Every other one on either backend: together all.
        first = (BACKENDS.index(backend) + [*KINDS].index(name)) % 2
        for answer in bad_answers_to(kind)[first::2]:
            fault = await fault_of(kind, answer, call, proxy)
            if fault is not None:
                faults.append(f"{answer.name}: {fault}")
            tried(f"{name}: {answer.name}")

    in_nursery(backend, HURRIED, body)
    assert not faults, "\n".join(faults)


async def fault_of(
    kind: RequestKind, answer: PlayedAnswer, call: Callable[[], Any], proxy: FaultProxy
) -> str | None:
    """What is wrong with how a call takes a bad answer; None where nothing is."""
    played = dataclasses.replace(answer, takes_body=kind.takes_body)
    started = time.monotonic()
    with proxy.play(played, kind.only):
        try:
            outcome = await call()
        except RemoteError:
            pass
        except Exception as exc:
            return f"raised {exc!r}"
        else:
            if not any(outcome is each for each in kind.nothing_known):
                return f"was taken for {outcome!r}"
        took = time.monotonic() - started
        if took > TOTAL + SLACK:
            return f"took {took:.1f} s"
        with anyio.move_on_after(SLACK):
            while proxy.misled():  # noqa: ASYNC110 - the proxy's threads set no event of this loop
                await anyio.sleep(0.002)
        if proxy.misled():
            return "left its connection open"
    try:
        with patience():
            outcome = await call()
    except Exception as exc:
        return f"the next call raised {exc!r}"
    return None if kind.right(outcome) else f"the next call gave {outcome!r}"
