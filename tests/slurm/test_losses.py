"""What becomes of a transformation whose SLURM job, or whose scheduler, ends under it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from bench import PATIENCE, Bench
from services import wait_until
from stages import SlurmHome, program

HELD = """
if __name__ == "__main__":
    seamless.config.init()
    found = held(str(folder / "started"), str(folder / "released")).run()
    report(found=found, then=job(20).run())
    seamless.close()
"""

FATAL = """
@delayed
def fatal(started):
    import os, subprocess, time

    with open(started, "a") as file:
        file.write(os.environ["SLURM_JOB_ID"] + "\\n")
    subprocess.run(["scancel", os.environ["SLURM_JOB_ID"]])
    while True:
        time.sleep(1)


if __name__ == "__main__":
    seamless.config.init()
    report(met=outcome(fatal(str(folder / "started")).run), then=job(25).run())
    seamless.close()
"""

SCHEDULER = """
if __name__ == "__main__":
    seamless.config.init()
    first = job(30).run()
    (folder / "idle").touch()
    until((folder / "killed").exists)
    second = job(31).run()
    met = outcome(held(str(folder / "started"), str(folder / "released")).run)
    report(first=first, second=second, met=met, then=job(32).run())
    seamless.close()
"""


def test_a_transformation_whose_slurm_job_is_cancelled_runs_again(
    stage: SlurmHome, bench: Bench, folder: Path
) -> None:
    with program(stage, HELD, folder) as running:
        running.wait_for(lambda: running.started, "its start")
        bench.run("scancel", running.started[0])
        running.wait_for(lambda: len(running.started) == 2, "its second start")
        running.release()
        found = running.result()
    first, second = running.started
    assert first != second
    assert "JobState=CANCELLED" in bench.job(first)
    assert found["found"] == second
    assert found["then"].startswith("20 in ")


def test_a_transformation_whose_slurm_job_reaches_its_walltime_runs_again(
    own_stage: Callable[..., SlurmHome], bench: Bench, folder: Path
) -> None:
    # The worker's own lifetime would end it before.
    stage = own_stage(walltime="00:01:00", lifetime="1h")
    with program(stage, HELD, folder) as running:
        running.wait_for(lambda: len(running.started) == 2, "its second start")
        running.release()
        found = running.result()
    first, second = running.started
    assert "JobState=TIMEOUT" in bench.job(first)
    assert found["found"] == second
    assert found["then"].startswith("20 in ")


def test_a_transformation_that_loses_every_slurm_job_it_gets_ends_in_an_error(
    own_stage: Callable[..., SlurmHome], folder: Path
) -> None:
    once_more = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    with program(own_stage(), FATAL, folder, env=once_more) as running:
        found = running.result()
    first, second = running.started
    assert first != second
    assert "on 2 different workers, but all those workers died" in found["met"]
    assert found["then"].startswith("25 in ")


def test_a_killed_scheduler_is_launched_again_and_only_the_call_that_met_it_fails(
    stage: SlurmHome, bench: Bench, folder: Path
) -> None:
    with program(stage, SCHEDULER, folder) as running:
        running.wait_for((folder / "idle").exists, "the first result")
        before = set(bench.jobs())
        os.kill(stage.scheduler(), signal.SIGKILL)
        (folder / "killed").touch()
        running.wait_for(lambda: running.started, "the start of a job")
        before |= set(bench.jobs())
        os.kill(stage.scheduler(), signal.SIGKILL)
        found = running.result()
    assert found["first"].startswith("30 in ")
    assert found["second"].startswith("31 in ")
    assert "has died" in found["met"]
    assert "Its job is lost" in found["met"]
    assert found["then"].startswith("32 in ")
    running.release()
    wait_until(
        lambda: not before & set(bench.jobs()),
        timeout=PATIENCE,
        what="the end of the dead schedulers' workers",
    )
