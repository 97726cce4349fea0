"""A stage that waits for workers says so, and why, in the queue's own words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import readme
from bench import Bench
from stages import Program, SlurmHome, program

HELD = """
if __name__ == "__main__":
    seamless.config.init()
    report(found=held(str(folder / "started"), str(folder / "released")).run())
    seamless.close()
"""

LEFT = """
if __name__ == "__main__":
    seamless.config.init()
    call = threading.Thread(target=lambda: outcome(job(41).run))
    call.start()
    until((folder / "seen").exists)
    seamless.close()
    call.join()
    report(left=True)
"""


def said(running: Program) -> list[str]:
    """What has been logged of waiting for workers."""
    return [message for name, _, message in running.log if name.endswith("worker_wait")]


def test_a_pending_slurm_job_is_named_once_with_its_reason(
    own_stage: Callable[..., SlurmHome], bench: Bench, folder: Path
) -> None:
    with (
        bench.drained("repair of the cooling") as resume,
        program(own_stage(), HELD, folder) as running,
    ):
        running.wait_for(lambda: "PENDING" in str(said(running)), "the line that says it waits")
        reason = bench.run("squeue", "--noheader", "--format", "%r")
        resume()
        running.wait_for(lambda: "have come" in str(said(running)), "the line that says no more")
        running.release()
        found = running.result()
    lines = said(running)
    assert [found["found"]] == running.started
    assert len(set(lines)) == len(lines)
    assert [line for line in lines if f"PENDING ({reason})" in line]
    assert "workers have come" in lines[-1]
    shown = readme.outputs()[1].splitlines()
    # Its reason may be in the words of another version of SLURM.
    assert [line for line in lines if line.startswith(shown[0].partition("(")[0])]
    assert lines[-1] == shown[-1]


def test_a_refused_slurm_job_is_told_in_sbatchs_words(
    own_stage: Callable[..., SlurmHome], folder: Path
) -> None:
    with program(own_stage(partition="nowhere"), LEFT, folder) as running:
        running.wait_for(lambda: "sbatch: error" in str(said(running)), "sbatch's words")
        (folder / "seen").touch()
        running.result()
    told, _, _ = said(running)[-1].partition(" (from ")
    assert "invalid partition specified: nowhere" in told
    assert told in readme.outputs()[2]
