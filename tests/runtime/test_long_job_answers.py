"""Answers to jobs that are far too long, or break off: the status says how the job has ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fault_proxy import Fault, FaultProxy, Harm, Toward
from hosts import Host
from jobs import COUNT, runs, submission, use
from made_up_jobserver import RESULT, MadeUpJobserver, new_job
from memory import forget_peak, peak
from services import Service

from seamless_remote import AnswerError, Settings, TransformationError
from seamless_remote.clients.base import ANSWER_LIMIT
from seamless_remote.clients.job_answers import TEXT_LIMIT

HURRIED = Settings(read_timeout=1.0)
LONG_TEXT = 65 * 1024 * 1024
MAY_TAKE = 8 * TEXT_LIMIT


@contextmanager
def answering(status: int, body: bytes) -> Iterator[MadeUpJobserver]:
    """A jobserver that gives each job this answer."""
    server = MadeUpJobserver((status, body))
    server.let_go.set()
    try:
        yield server
    finally:
        server.close()


def test_an_error_of_65_mib_is_one_run_and_comes_with_its_beginning_and_its_end(
    host_with: Callable[[Settings], Host],
) -> None:
    first, last = "Traceback (most recent call last):", "KeyError: 'it'"
    text = first.encode() + "é".encode() * (LONG_TEXT // 2) + last.encode()

    async def main() -> None:
        with answering(500, b"short"), pytest.raises(TransformationError):
            await new_job().run()  # what is imported at the first job does not count
        with answering(500, text) as server:
            before = forget_peak()
            with pytest.raises(TransformationError) as error:
                await new_job().run()
            assert peak() - before < MAY_TAKE
            assert len(server.submitted) == 1
        message = str(error.value)
        assert message.startswith(first)
        assert message.endswith(last)
        left_out = len(text) - TEXT_LIMIT
        assert f"[{left_out} bytes of this text are left out here]" in message
        assert len(message.encode()) < 2 * TEXT_LIMIT

    host_with(HURRIED).run(main)


def test_an_error_text_comes_whole_up_to_the_limit(host_with: Callable[[Settings], Host]) -> None:
    text = "é" * (TEXT_LIMIT // 2)

    async def main() -> None:
        with answering(500, text.encode()), pytest.raises(TransformationError) as error:
            await new_job().run()
        assert str(error.value) == text

    host_with(HURRIED).run(main)


def test_a_result_far_too_long_is_an_error_that_says_so_and_is_not_run_again(
    host_with: Callable[[Settings], Host],
) -> None:
    record = {"result_checksum": RESULT.hex(), "record_runtime": "x" * ANSWER_LIMIT}

    async def main() -> None:
        with answering(200, json.dumps(record).encode()) as server:
            with pytest.raises(AnswerError, match=rf"has run job .* than {ANSWER_LIMIT} bytes"):
                await new_job().run()
            assert len(server.submitted) == 1

    host_with(HURRIED).run(main)


def test_an_error_text_that_breaks_off_is_the_error_all_the_same(
    host_with: Callable[[Settings], Host],
    faulty: Callable[[Service], FaultProxy],
    shared_hashserver: Service,
    shared_database: Service,
    shared_jobserver: Service,
    folder: Path,
) -> None:
    code = COUNT.replace("return number + 1", "raise ValueError('x' * 3_000_000)")
    proxy = faulty(shared_jobserver)

    async def main() -> None:
        use(shared_hashserver, shared_database, proxy.url)
        job = await submission(code, folder)
        proxy.put(Fault(Harm.RESET, Toward.CLIENT, at=1_000_000))
        with pytest.raises(TransformationError) as error:
            await job.run()
        assert "the rest of this text was lost" in str(error.value)
        assert "xxx" in str(error.value)
        assert runs(folder) == 1

    host_with(HURRIED).run(main)
