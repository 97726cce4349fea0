"""What is promised of jobs at a jobserver, on real jobservers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from jobs import COUNT, FAIL, LAST, WAIT, Relay, Submission, runs, submission, use, value_of
from made_up_service import Answer, MadeUpService
from seamless import Checksum
from services import Service, wait_until

import seamless_remote
from seamless_remote import (
    AnswerError,
    NurseryClosedError,
    ServiceError,
    Settings,
    TransformationCanceledError,
    TransformationError,
    jobserver_remote,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("fresh_remote")]

ENDED = ("not-running", "done", "canceled")


@pytest.fixture
def activated(
    fresh_remote: None,
    shared_hashserver: Service,
    shared_database: Service,
    shared_jobserver: Service,
) -> None:
    use(shared_hashserver, shared_database, shared_jobserver.url)


async def begun(folder: Path, times: int = 1) -> None:
    """Until the code of a job has begun to run so many times."""
    await anyio.to_thread.run_sync(lambda: wait_until(lambda: runs(folder) >= times))


async def ended(job: Submission) -> None:
    """Until no jobserver runs the job any more."""
    with anyio.fail_after(30):
        while await jobserver_remote.transformation_status_async(job.tf_checksum) not in ENDED:
            await anyio.lowlevel.checkpoint()


@pytest.mark.usefixtures("activated")
async def test_a_job_gives_its_result_and_its_runtime(folder: Path) -> None:
    async with seamless_remote.open_nursery():
        answer = await (await submission(COUNT, folder, 41)).run()
        assert await value_of(answer) == 42
    assert runs(folder) == 1
    assert answer["record_runtime"]["wall_time_seconds"] >= 0
    assert {"probe_context", "compilation_context", "job_validation"} <= answer.keys()


@pytest.mark.usefixtures("activated")
async def test_failing_code_runs_once_and_its_error_comes_back(folder: Path) -> None:
    async with seamless_remote.open_nursery():
        job = await submission(FAIL, folder)
        with pytest.raises(TransformationError, match="the user's own mistake") as caught:
            await job.run()
    assert not isinstance(caught.value, OSError)
    assert runs(folder) == 1


@pytest.mark.usefixtures("activated")
async def test_a_job_longer_than_the_read_timeout_is_waited_for(folder: Path) -> None:
    async with seamless_remote.open_nursery(Settings(read_timeout=1.0)):
        answer = await (await submission(LAST, folder, 3)).run()
        assert await value_of(answer) == 4
    assert runs(folder) == 1


async def test_a_cut_connection_is_followed_by_one_more_submission_once_the_job_is_over(
    folder: Path,
    shared_hashserver: Service,
    shared_database: Service,
    shared_jobserver: Service,
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = []
    with Relay(shared_jobserver) as relay:
        use(shared_hashserver, shared_database, relay.url)
        async with seamless_remote.open_nursery(Settings(read_timeout=1.0)):
            job = await submission(WAIT, folder)

            async def run() -> None:
                answers.append(await job.run())

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                await begun(folder)
                await anyio.to_thread.run_sync(relay.cut)
                assert await jobserver_remote.transformation_status_async(job.tf_checksum) == (
                    "running"
                )
                assert runs(folder) == 1
                (folder / "go").touch()
            assert await value_of(answers[0]) == 2
    assert runs(folder) == 2
    assert "the user's code runs again" in caplog.text


async def test_a_job_is_submitted_twice_at_most(
    folder: Path,
    shared_hashserver: Service,
    shared_database: Service,
    shared_jobserver: Service,
) -> None:
    with Relay(shared_jobserver) as relay:
        use(shared_hashserver, shared_database, relay.url)
        async with seamless_remote.open_nursery(Settings(read_timeout=1.0)):
            job = await submission(WAIT, folder)

            async def run() -> None:
                with pytest.raises(ServiceError, match=r"fate of job .* is unknown"):
                    await job.run()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                await begun(folder)
                await anyio.to_thread.run_sync(relay.cut)
                (folder / "go").touch()
                await ended(job)
                (folder / "go").unlink()
                await begun(folder, 2)
                await anyio.to_thread.run_sync(relay.cut)
            (folder / "go").touch()
            await ended(job)
    assert runs(folder) == 2


async def test_an_extern_jobserver_that_is_killed_and_stays_away_leaves_the_fate_unknown(
    folder: Path,
    shared_hashserver: Service,
    shared_database: Service,
    own_jobserver: Callable[[], Service],
) -> None:
    server = own_jobserver()
    use(shared_hashserver, shared_database, server.url)
    async with seamless_remote.open_nursery(Settings(read_timeout=1.0)):
        job = await submission(WAIT, folder)

        async def run() -> None:
            with pytest.raises(ServiceError, match=r"fate .* is unknown") as caught:
                await job.run()
            assert server.url in str(caught.value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await begun(folder)
            await anyio.to_thread.run_sync(server.kill)
        (folder / "go").touch()


async def test_an_extern_jobserver_that_comes_back_gets_the_job_again(
    folder: Path,
    shared_hashserver: Service,
    shared_database: Service,
    own_jobserver: Callable[[], Service],
) -> None:
    server = own_jobserver()
    use(shared_hashserver, shared_database, server.url)
    answers = []
    async with seamless_remote.open_nursery(Settings(read_timeout=60.0)):
        job = await submission(WAIT, folder)

        async def run() -> None:
            answers.append(await job.run())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await begun(folder)
            await anyio.to_thread.run_sync(server.restart)
            (folder / "go").touch()
        assert await value_of(answers[0]) == 2
    assert runs(folder) == 2


async def test_a_silent_jobserver_is_waited_for_as_long_as_the_read_timeout(
    folder: Path,
    shared_hashserver: Service,
    shared_database: Service,
    own_jobserver: Callable[[], Service],
) -> None:
    server = own_jobserver()
    use(shared_hashserver, shared_database, server.url)
    settings = Settings(read_timeout=1.0, healthcheck_timeout=0.5)
    async with seamless_remote.open_nursery(settings):
        job = await submission(WAIT, folder)

        async def run() -> None:
            with pytest.raises(ServiceError, match="silent and unreachable"):
                await job.run()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await begun(folder)
            await anyio.to_thread.run_sync(server.stop)
        server.cont()
        (folder / "go").touch()


@pytest.mark.usefixtures("activated")
async def test_cancelling_the_caller_in_the_nurserys_loop_cancels_the_job(folder: Path) -> None:
    async with seamless_remote.open_nursery():
        job = await submission(WAIT, folder)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(job.run)
            await begun(folder)
            tasks.cancel_scope.cancel()
        status = await jobserver_remote.transformation_status_async(job.tf_checksum)
        assert status == "canceled"
        (folder / "go").touch()


@pytest.mark.usefixtures("activated")
async def test_cancelling_the_caller_in_another_loop_cancels_the_job(folder: Path) -> None:
    async def elsewhere(job: Submission) -> str:
        task = asyncio.create_task(job.run())
        await begun(folder)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await jobserver_remote.transformation_status_async(job.tf_checksum)

    async with seamless_remote.open_nursery():
        job = await submission(WAIT, folder)
        assert await anyio.to_thread.run_sync(asyncio.run, elsewhere(job)) == "canceled"
        (folder / "go").touch()


@pytest.mark.usefixtures("activated")
async def test_closing_the_nursery_cancels_the_jobs_that_run_in_it(folder: Path) -> None:
    errors = []

    async def run(job: Submission) -> None:
        try:
            await job.run()
        except NurseryClosedError as exc:
            errors.append(exc)

    async with (
        anyio.create_task_group() as tasks,
        seamless_remote.open_nursery(Settings(grace_period=0.5)),
    ):
        job = await submission(WAIT, folder)
        tasks.start_soon(run, job)
        await begun(folder)
    assert len(errors) == 1
    async with seamless_remote.open_nursery():
        status = await jobserver_remote.transformation_status_async(job.tf_checksum)
        assert status == "canceled"
        (folder / "go").touch()


@pytest.mark.usefixtures("activated")
async def test_a_job_that_is_canceled_at_the_server_ends_with_an_error_of_its_own(
    folder: Path,
) -> None:
    async with seamless_remote.open_nursery():
        job = await submission(WAIT, folder)

        async def run() -> None:
            with pytest.raises(TransformationCanceledError, match=r"^Transformation was canceled$"):
                await job.run()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await begun(folder)
            canceled = await anyio.to_thread.run_sync(
                jobserver_remote.cancel_transformation, job.tf_checksum
            )
            assert canceled
            (folder / "go").touch()
        assert not await jobserver_remote.cancel_transformation_async(
            (await submission(COUNT, folder, 5)).tf_checksum
        )


@pytest.mark.usefixtures("activated")
async def test_fifty_jobs_at_once_on_two_workers_all_give_their_own_result(folder: Path) -> None:
    results: dict[int, int] = {}

    async def run(number: int) -> None:
        job = await submission(COUNT, folder, number)
        results[number] = await value_of(await job.run())

    async with seamless_remote.open_nursery(), anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(run, number)
    assert results == {number: number + 1 for number in range(50)}
    assert runs(folder) == 50


async def test_a_dead_jobserver_is_passed_over(
    folder: Path,
    shared_hashserver: Service,
    shared_database: Service,
    shared_jobserver: Service,
    nowhere: str,
) -> None:
    use(shared_hashserver, shared_database, nowhere, shared_jobserver.url)
    async with seamless_remote.open_nursery():
        for number in range(3):
            answer = await (await submission(COUNT, folder, number)).run()
            assert await value_of(answer) == number + 1
    assert runs(folder) == 3


async def test_a_job_goes_to_the_jobserver_with_the_fewest_in_flight(
    folder: Path,
    shared_hashserver: Service,
    shared_database: Service,
    shared_jobserver: Service,
    own_jobserver: Callable[[], Service],
) -> None:
    use(shared_hashserver, shared_database, shared_jobserver.url, own_jobserver().url)
    async with seamless_remote.open_nursery() as nursery:
        jobs = [await submission(WAIT, folder, number) for number in range(2)]
        async with anyio.create_task_group() as tasks:
            for job in jobs:
                tasks.start_soon(job.run)
            await begun(folder, 2)
            (service,) = [
                each for each in nursery.snapshot().services if each.name == "jobserver_remote"
            ]
            assert [client.in_flight for client in service.clients] == [1, 1]
            (folder / "go").touch()


async def test_no_jobserver_within_reach_is_one_error_that_names_them(
    folder: Path, shared_hashserver: Service, shared_database: Service, nowhere: str
) -> None:
    use(shared_hashserver, shared_database, nowhere)
    async with seamless_remote.open_nursery(Settings(max_tries=2)):
        job = await submission(COUNT, folder)
        with pytest.raises(ServiceError, match=nowhere) as caught:
            await job.run()
    assert isinstance(caught.value, ConnectionError)
    assert runs(folder) == 0


async def test_without_a_jobserver_every_call_says_so(
    folder: Path, shared_hashserver: Service, shared_database: Service
) -> None:
    use(shared_hashserver, shared_database)
    job = await submission(COUNT, folder)
    with pytest.raises(RuntimeError, match="No jobserver clients"):
        await job.run()
    with pytest.raises(RuntimeError, match="No jobserver clients"):
        await jobserver_remote.cancel_transformation_async(job.tf_checksum)
    with pytest.raises(RuntimeError, match="No jobserver clients"):
        await anyio.to_thread.run_sync(jobserver_remote.transformation_status, job.tf_checksum)


async def test_a_page_of_somebody_else_cancels_no_job_and_tells_no_status(
    shared_hashserver: Service,
    shared_database: Service,
    made_up: Callable[[Answer], MadeUpService],
) -> None:
    page = b"<html>Please log in to the network.</html>"
    service = made_up(lambda method, path, body: (200, b"OK" if "health" in path else page))
    use(shared_hashserver, shared_database, service.url)
    checksum = Checksum("ab" * 32)
    async with seamless_remote.open_nursery():
        with pytest.raises(AnswerError, match="Please log in"):
            await jobserver_remote.cancel_transformation_async(checksum)
        with pytest.raises(AnswerError, match="Please log in"):
            await jobserver_remote.transformation_status_async(checksum)


@pytest.mark.usefixtures("activated")
async def test_the_synchronous_forms_refuse_to_block_a_running_loop(folder: Path) -> None:
    async with seamless_remote.open_nursery():
        job = await submission(COUNT, folder)
        with pytest.raises(RuntimeError, match="cancel_transformation_async"):
            jobserver_remote.cancel_transformation(job.tf_checksum)
        with pytest.raises(RuntimeError, match="transformation_status_async"):
            jobserver_remote.transformation_status(job.tf_checksum)
        assert (
            await anyio.to_thread.run_sync(jobserver_remote.transformation_status, job.tf_checksum)
            == "not-running"
        )


@pytest.mark.usefixtures("activated")
async def test_another_record_mode_is_refused_with_the_servers_words(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seamless_transformer.record_runtime._CACHED_RECORD_MODE", True)
    async with seamless_remote.open_nursery():
        job = await submission(COUNT, folder)
        with pytest.raises(seamless_remote.RefusedError, match="record mode") as caught:
            await job.run()
    assert caught.value.status == 409
    assert runs(folder) == 0


@pytest.mark.parametrize(
    ("type_", "url", "error"),
    [
        ("daskserver", "http://127.0.0.1:1", TypeError),
        ("jobserver", None, ValueError),
        ("jobserver", "ftp://127.0.0.1", ValueError),
        ("jobserver", "http://user:pw@127.0.0.1", ValueError),
    ],
)
def test_an_extern_jobserver_that_makes_no_sense_is_an_error_at_once(
    type_: str, url: str | None, error: type[Exception]
) -> None:
    with pytest.raises(error):
        jobserver_remote.define_extern_client("j", type_, url=url)
    assert jobserver_remote.inspect_extern_clients() == []
