"""Answers about jobs that get lost on the way: what is known of the job is used."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from fault_proxy import Fault, FaultProxy, Harm, Toward
from hosts import Host
from jobs import WAIT, Submission, runs, submission, use
from made_up_service import MadeUpService
from seamless import Checksum
from services import Service, wait_until
from signals import LONG
from stored_buffers import checksum_of, fresh

from seamless_remote import (
    ServiceError,
    Settings,
    TransformationCanceledError,
    TransformationError,
    jobserver_remote,
)
from seamless_remote.clients import job_watch
from seamless_remote.clients.connections import connections
from seamless_remote.clients.health import Health
from seamless_remote.clients.jobserver import JOBS_LANE

HURRIED = Settings(read_timeout=1.0)
RESULT = Checksum("ab" * 32)


class ForgetfulJobserver:
    """A jobserver whose first answers, `swallowed` in number, never come; the next one does.

    Meanwhile it says of the job what `statuses` give, the last one for ever.
    """

    def __init__(self, swallowed: int, *statuses: str) -> None:
        self.submitted = 0
        self.asked = 0
        self._swallowed = swallowed
        self._statuses = list(statuses)
        self._end = threading.Event()
        self._service = MadeUpService(self._answer)
        self.url = self._service.url

    def close(self) -> None:
        self._end.set()
        self._service.close()

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if path == "/run-transformation":
            self.submitted += 1
            if self.submitted <= self._swallowed:
                assert self._end.wait(LONG)
            return 200, json.dumps({"result_checksum": RESULT.hex()}).encode()
        if path.startswith("/transformation-status"):
            self.asked += 1
            left = self._statuses
            status = left.pop(0) if len(left) > 1 else left[0]
            return 200, json.dumps({"status": status}).encode()
        return 200, b"OK"


@contextmanager
def forgetful(swallowed: int, *statuses: str) -> Iterator[ForgetfulJobserver]:
    """Makes it the only jobserver."""
    server = ForgetfulJobserver(swallowed, *statuses)
    try:
        jobserver_remote.define_extern_client("forgetful", "jobserver", url=server.url)
        jobserver_remote.activate(no_main=True, extern_clients=["forgetful"])
        yield server
    finally:
        server.close()


async def run_a_job() -> Any:
    checksum = checksum_of(fresh(30))
    return await Submission({"__language__": "python"}, checksum).run()


@pytest.fixture
def quickly_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_watch, "LOST_AFTER", 0.3)
    monkeypatch.setattr(job_watch, "LONGEST_WATCH_INTERVAL", 0.05)


@pytest.mark.usefixtures("quickly_lost")
@pytest.mark.parametrize("status", ["not-running", "done"])
def test_a_job_that_the_server_does_not_run_and_does_not_answer_is_run_once_more(
    status: str, host_with: Callable[[Settings], Host], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        with forgetful(1, status) as server:
            answer = await run_a_job()
            assert answer["result_checksum"] == RESULT
            assert server.submitted == 2

    host_with(HURRIED).run(main)
    assert "the user's code runs again" in caplog.text


@pytest.mark.usefixtures("quickly_lost")
def test_a_job_that_is_lost_twice_is_an_error_that_says_so(
    host_with: Callable[[Settings], Host],
) -> None:
    async def main() -> None:
        with forgetful(2, "not-running") as server:
            with pytest.raises(
                ServiceError, match=r"fate of job .* unknown.* not-running"
            ) as error:
                await run_a_job()
            assert server.url in str(error.value)
            assert server.submitted == 2

    host_with(HURRIED).run(main)


@pytest.mark.usefixtures("quickly_lost")
@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        ("failed", TransformationError, "its error message was lost"),
        ("canceled", TransformationCanceledError, "^Transformation was canceled$"),
    ],
)
def test_a_lost_job_that_failed_or_was_canceled_is_not_run_again(
    status: str,
    error: type[Exception],
    text: str,
    host_with: Callable[[Settings], Host],
) -> None:
    async def main() -> None:
        with forgetful(1, status) as server:
            with pytest.raises(error, match=text):
                await run_a_job()
            assert server.submitted == 1

    host_with(HURRIED).run(main)


@pytest.mark.usefixtures("quickly_lost")
def test_a_job_that_runs_is_waited_for_and_lost_only_some_time_after_it_ran_last(
    host_with: Callable[[Settings], Host],
) -> None:
    statuses = ["running"] * 5 + ["not-running"] * 2 + ["running"] * 3

    async def main() -> None:
        with forgetful(1, *statuses, "not-running") as server:
            answer = await run_a_job()
            assert answer["result_checksum"] == RESULT
            assert server.submitted == 2
            assert server.asked > len(statuses)

    host_with(HURRIED).run(main)


def test_each_job_has_a_connection_of_its_own_whatever_the_server_says_about_it(
    host: Host,
) -> None:
    """It closes them, as it is asked to, and does not say so: the next job would be lost."""

    async def main() -> None:
        with forgetful(0, "not-running") as server:
            for _ in range(5):
                await run_a_job()
            assert server.submitted == 5
        lanes = {each.lane: each for each in connections.snapshot() if each.origin == server.url}
        assert (lanes[JOBS_LANE].opened, lanes[JOBS_LANE].idle) == (5, 0)

    host.run(main)


@pytest.mark.parametrize("harm", [Harm.CUT, Harm.RESET])
def test_a_cancellation_whose_answer_gets_lost_is_true_when_it_is_asked_for_again(
    harm: Harm,
    host: Host,
    shared_hashserver: Service,
    shared_database: Service,
    shared_jobserver: Service,
    faulty: Callable[[Service], FaultProxy],
    folder: Path,
) -> None:
    between = faulty(shared_jobserver)

    async def run_canceled(job: Submission) -> None:
        with pytest.raises(TransformationCanceledError):
            await job.run()

    async def cancel(checksum: Checksum) -> bool:
        """The first answer gets lost; the second does not."""
        before = len(posts())
        between.put(Fault(harm, Toward.CLIENT))
        canceled = await jobserver_remote.cancel_transformation_async(checksum)
        assert len(posts()) == before + 2
        return canceled

    def posts() -> list[bytes]:
        return [line for line in between.requests() if line.startswith(b"POST")]

    async def main() -> None:
        use(shared_hashserver, shared_database, shared_jobserver.url)
        job = await submission(WAIT, folder)
        async with anyio.create_task_group() as group:
            group.start_soon(run_canceled, job)
            await anyio.to_thread.run_sync(wait_until, lambda: runs(folder) == 1)
            # The job has a connection past the proxy.
            use(shared_hashserver, shared_database, between.url)
            (client,) = jobserver_remote._registry.active()
            await anyio.to_thread.run_sync(wait_until, lambda: client.health.state is Health.UP)
            assert await cancel(job.tf_checksum) is True
            (folder / "go").touch()
        # What was canceled before, or is not known, is not canceled by this.
        assert await jobserver_remote.cancel_transformation_async(job.tf_checksum) is False
        assert await cancel(checksum_of(fresh(30))) is False

    host.run(main)
