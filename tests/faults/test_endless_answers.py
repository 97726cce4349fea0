"""Answers without end, or that inflate without end: an error, within bounded memory."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import FaultProxy
from malformed_contents import WITHOUT_END
from nursery_runs import BACKENDS, in_nursery
from played_answers import PlayedAnswer
from request_kinds import KINDS, use
from services import Service

from seamless_remote import Settings, buffer_remote
from seamless_remote.errors import RemoteError

MAY_TAKE = 250_000_000
"""Bytes: twice what is read of an answer, or taken of a buffer, before questions are asked."""

UNHURRIED = Settings(total_timeout=20.0, max_tries=1, grace_period=0.5)

ASKED = ["get_buffer", "copy_buffer", "get_buffer_lengths", "promise", "get_transformation_result"]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        pytest.param(name, answer, id=f"{name}-{answer.name}")
        for name in ASKED
        for answer in WITHOUT_END
        # What is whole is wrong for buffers only.
        if answer.status is None or KINDS[name].nothing_known
    ],
)
def test_an_answer_without_end_takes_bounded_memory(
    name: str,
    answer: PlayedAnswer,
    shared_hashserver: Service,
    shared_database: Service,
    faulty: Callable[[Service], FaultProxy],
    tried: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    kind = KINDS[name]
    proxy = faulty(shared_hashserver if kind.module is buffer_remote else shared_database)
    is_buffer = bool(kind.nothing_known)

    async def body() -> None:
        use(kind.module, proxy.url)
        call = await kind.prepare()
        before = _forget_peak()
        # The question how long a buffer is, is answered by the real service.
        with proxy.play(answer, "GET /[0-9a-f]{64} " if is_buffer else ""):
            await _is_bad(call, kind.nothing_known)
        assert _peak() - before < MAY_TAKE
        assert kind.right(await call())

    backend = BACKENDS[(ASKED.index(name) + WITHOUT_END.index(answer)) % 2]
    in_nursery(backend, UNHURRIED, body)
    tried(f"{name}: {answer.name}")


async def _is_bad(call: Callable[[], Any], nothing_known: tuple[Any, ...]) -> None:
    try:
        outcome = await call()
    except RemoteError:
        return
    assert any(outcome is each for each in nothing_known)


def _forget_peak() -> int:
    """The memory in use; from here on `_peak` counts anew (see proc(5), `clear_refs`)."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
