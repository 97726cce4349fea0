"""What errors say of a Dask scheduler: what happened, what becomes of a job, and what to do."""

from __future__ import annotations

from ..launching.launch import Launched
from ..launching.service_log import ServiceLog
from .scheduler_probe import Evidence

LOG_LINES = 5
"""How many lines of the scheduler's log an error quotes."""


def unanswered(where: str, evidence: Evidence, words: str) -> str:
    """For a scheduler that cannot be connected to. `where` names it, `words` is the reason."""
    advice = (
        "try again, and another one is launched"
        if evidence is Evidence.GONE
        else "nothing is launched in its place, for it may be busy: try again, or end it"
    )
    return f"{where} does not answer: {words}; {advice}"


def fate_of_job(where: str, evidence: Evidence, words: str) -> str:
    """For a transformation that was at a scheduler when the connection to it ended."""
    if evidence is Evidence.ANSWERS:
        return (
            f"the connection to {where} broke while this transformation was there. The scheduler "
            "runs, but lets go of the jobs of a client that is cut off. Run it again; if its job "
            "came to an end, its result is found"
        )
    if evidence is Evidence.SILENT:
        return (
            f"the connection to {where} broke while this transformation was there, and since then "
            f"it cannot be reached: {words}. Nothing is launched in its place, for it may be busy. "
            "Run it again when it answers"
        )
    # The worker's own child runs the code. It notices late that nobody listens to it.
    return (
        f"{where} has died ({words}) while this transformation was there. Its job is lost: the "
        "workers end with their scheduler, and nobody is left to store its result, though its code "
        "may run on for a while. A scheduler is launched again: run the transformation again; if "
        "its job had come to an end before, its result is found"
    )


def end_of_log(launched: Launched) -> str:
    """The end of an error: where the scheduler's own log is, and its last lines.

    Empty if it is on another machine.
    """
    log = ServiceLog.of(launched.launch_dict)
    if log is None:
        return ""
    lines = log.last_lines(0, LOG_LINES)
    return f". Its log is {log.path}" + ("; it ends with:\n" + "\n".join(lines) if lines else "")
