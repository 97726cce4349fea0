"""A stage on SLURM does what a stage does."""

from __future__ import annotations

from pathlib import Path

from bench import Bench
from stages import SlurmHome, program

ONE_JOB = """
if __name__ == "__main__":
    seamless.config.init()
    report(found=job(7).run(), here=os.environ.get("SLURM_JOB_ID"))
    seamless.close()
"""

NESTED = """
@direct
def outer(number):
    import os
    from seamless.transformer import direct

    @direct
    def inner(number):
        import os

        return [2 * number, os.environ["SLURM_JOB_ID"]]

    found = [inner(number), inner(number + 1)]
    return [sum(value for value, _ in found), *{job for _, job in found}]


@delayed
def double(number):
    return 2 * number


@delayed
def add(left, right):
    return left + right


if __name__ == "__main__":
    seamless.config.init()
    report(nested=outer(10), dependent=add(double(3), double(4)).run())
    seamless.close()
"""


def test_a_transformation_runs_in_a_slurm_job(stage: SlurmHome, bench: Bench, folder: Path) -> None:
    with program(stage, ONE_JOB, folder) as running:
        found = running.result()
    number, _, slurm_job = found["found"].partition(" in ")
    assert (number, found["here"]) == ("7", None)
    assert "JobName=dask-worker" in bench.job(slurm_job)


def test_nested_and_dependent_transformations_run_in_slurm_jobs(
    stage: SlurmHome, bench: Bench, folder: Path
) -> None:
    with program(stage, NESTED, folder) as running:
        found = running.result()
    value, *slurm_jobs = found["nested"]
    assert (value, found["dependent"]) == (20 + 22, 6 + 8)
    assert slurm_jobs
    for slurm_job in slurm_jobs:
        assert "JobName=dask-worker" in bench.job(slurm_job)
