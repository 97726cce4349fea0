"""Why the jobs of a stage wait for workers: said once for each reason, in the queue's own words."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from concurrent.futures import Future
from dataclasses import dataclass

from ..launching.launch import Launched
from ..launching.service_log import ServiceLog
from ..nursery.process import start_worker
from ..nursery.waiter import wait_for

logger = logging.getLogger(__name__)

SQUEUE_TIMEOUT = 5.0
"""Seconds that `squeue` may take."""

JOB_NAME = "dask-worker"
"""What dask-jobqueue calls its jobs."""

LOG_LINES = 400
"""How many lines of the scheduler's log are searched for a refusal."""

SUBMITTERS = "sbatch|oarsub|qsub|bsub|condor_submit"
REFUSAL = re.compile(rf"\s*((?:{SUBMITTERS})\b.*\b(?:error|failed).*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Load:
    """A scheduler's workers, and how many tasks none of them can take."""

    workers: int
    unrunnable: int


def is_waiting(jobs: int, load: Load) -> bool:
    """Whether the jobs of this process wait for workers.

    A cluster that grows and shrinks has none when it is idle, which is no reason to say anything.
    """
    return jobs > 0 and (load.workers == 0 or load.unrunnable > 0)


def reason(launched: Launched, load: Load) -> str:
    """Why they wait, as far as it can be known. Blocks, for `SQUEUE_TIMEOUT` at most."""
    if load.workers:
        return "no worker that it has offers the resources that they ask for"
    log = ServiceLog.of(launched.launch_dict)
    queued = _queued(launched, log)
    if queued:
        return f"SLURM says of its jobs named {JOB_NAME}: {', '.join(queued)}"
    if log is None:
        return "none has joined it; its log is on another machine"
    refusals = refusals_in(log.last_lines(0, LOG_LINES))
    if refusals:
        return f"the queue refuses its jobs: {' / '.join(refusals)} (from {log.path})"
    return f"none has joined it; its log is {log.path}"


def refusals_in(lines: list[str]) -> list[str]:
    """A queue's refusals in a scheduler's log: the last two that differ, the older one first."""
    found = (match.group(1).strip() for line in lines if (match := REFUSAL.fullmatch(line)))
    # A refused job is submitted over and over.
    return list(dict.fromkeys(found))[-2:]


def _queued(launched: Launched, log: ServiceLog | None) -> list[str]:
    """The states of the worker jobs in SLURM's queue; empty if there is none, or no SLURM here.

    Other stages have jobs of the same name. Each writes beside the log of its own scheduler.
    """
    here = launched.launch_dict.get("hostname") is None
    if "SLURM" not in launched.launch_dict["cluster_string"] or not here:
        return []
    squeue = shutil.which("squeue")
    if squeue is None:
        return []
    command = [squeue, "--noheader", "--me", "--name", JOB_NAME]
    try:
        answer = subprocess.run(
            [*command, "--Format", "State:|,Reason:|,StdOut:|"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SQUEUE_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        logger.debug("squeue does not answer: %s", exc)
        return []
    if answer.returncode:
        logger.debug("squeue fails: %s", answer.stderr.strip())
        return []
    states = set()
    for line in answer.stdout.splitlines():
        state, _, rest = line.partition("|")
        why, _, output = rest.partition("|")
        if log is None or output.startswith(str(log.path)):
            # A job that runs has "None" for a reason.
            states.add(state if why in ("", "None") else f"{state} ({why})")
    return sorted(states)


class WorkerWait:
    """Logs when the jobs of a stage begin to wait for workers, for another reason, and no more.

    A wait counts when two looks in a row find it: workers take a moment to come.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.said: str | None = None
        self._seen = False

    async def note(self, launched: Launched, jobs: int, load: Load) -> None:
        """Take in what a look has found. Cancelling this is safe: the next look goes on."""
        if not is_waiting(jobs, load):
            if self.said is not None and load.workers:
                logger.info("transformations of %s wait no longer: workers have come", self.name)
            self.said, self._seen = None, False
            return
        seen_before, self._seen = self._seen, True
        if not seen_before:
            return
        why = await _in_a_thread(launched, load)
        if why != self.said:
            self.said = why
            logger.warning(
                "transformations of %s wait for workers at the Dask scheduler: %s", self.name, why
            )


async def _in_a_thread(launched: Launched, load: Load) -> str:
    future: Future[str] = Future()

    def find_out() -> None:
        try:
            future.set_result(reason(launched, load))
        except Exception as exc:
            future.set_exception(exc)

    start_worker("question to the queue", find_out)
    return await wait_for(future)
