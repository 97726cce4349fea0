"""Far more jobs at once than the process has descriptors, at a real jobserver."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from jobs import COUNT, Submission, runs, submission, use, value_of
from loops import run
from services import Home, Service, run_command

from seamless_remote import current_nursery

MANY = 120
DESCRIPTORS = 96
OF_THE_USER = 20


@pytest.mark.parametrize("kind", ["asyncio", "trio"])
def test_every_job_ends_well_once_and_the_program_can_open_its_own_files(
    kind: str,
    home: Home,
    folder: Path,
    own_jobserver: Callable[[], Service],
    shared_hashserver: Service,
    shared_database: Service,
) -> None:
    services = [shared_hashserver, shared_database, own_jobserver()]
    done = run_command(
        [sys.executable, "-W", "error", __file__, kind, str(folder)],
        home=home,
        env={
            "PYTHONPATH": os.pathsep.join(sys.path),
            "SERVICES": json.dumps([service.port for service in services]),
        },
    )
    assert done.stderr == ""
    assert json.loads(done.stdout) == {"values": sorted(range(1, MANY + 1)), "opened": True}
    assert runs(folder) == MANY


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    print(json.dumps(run(kind, run_all, folder)))


async def run_all(folder: Path) -> dict[str, object]:
    ports = json.loads(os.environ["SERVICES"])
    hashserver, database, jobserver = (f"http://127.0.0.1:{port}" for port in ports)
    use(hashserver, database, jobserver)
    jobs = [await submission(COUNT, folder, number) for number in range(MANY)]
    values: list[int] = []
    opened: list[bool] = []

    async def run_one(job: Submission) -> None:
        values.append(await value_of(await job.run()))
        if not opened and waiting():
            files = [open(os.devnull) for _ in range(OF_THE_USER)]  # noqa: SIM115
            for each in files:
                each.close()
            opened.append(True)

    async with anyio.create_task_group() as group:
        for job in jobs:
            group.start_soon(run_one, job)
    return {"values": sorted(values), "opened": opened == [True]}


def waiting() -> int:
    """How many jobs wait for a place."""
    nursery = current_nursery()
    return 0 if nursery is None else nursery.snapshot().jobs.waiting


if __name__ == "__main__":
    main()
