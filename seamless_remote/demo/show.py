"""Runs the steps and prints for each its outcome, the services launched and the time taken."""

from __future__ import annotations

import platform
import signal
import sys
import textwrap
import time

from .. import __version__
from . import programs
from .sandbox import Sandbox, StepError
from .steps import STEPS, Results, Step


def run_demo() -> int:
    """Run the steps in a new sandbox, up to the first failure; returns the exit status."""
    signal.signal(signal.SIGTERM, _interrupt)
    begin = time.perf_counter()
    sandbox = Sandbox()
    status = 0
    try:
        _print_introduction(sandbox)
        results = Results()
        for number, step in enumerate(STEPS, 1):
            if not _run_step(number, step, sandbox, results):
                status = 1
                break
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        status = 130
    finally:
        cleaned_up = _clean_up(sandbox)
    if not cleaned_up:
        return 1
    if status == 0:
        print(f"\nAll done in {time.perf_counter() - begin:.0f} s; no process and no file is left.")
    return status


def _print_introduction(sandbox: Sandbox) -> None:
    print(
        f"seamless-remote {__version__} on Python {platform.python_version()}, with the real"
        f" services on this machine.\nThe demo's HOME is {sandbox.home}; it is removed at the end."
        "\n\nThe user's transformation, the same at every level:\n\n"
        + textwrap.indent(programs.TRANSFORMATION, "    "),
        flush=True,
    )


def _run_step(number: int, step: Step, sandbox: Sandbox, results: Results) -> bool:
    """Run one step and print its outcome. False if it failed."""
    print(f"\n{number}. {step.__doc__}", flush=True)
    begin = time.perf_counter()
    try:
        lines = list(step(sandbox, results))
    except StepError as exc:
        print(f"   FAILED: {exc}", file=sys.stderr)
        print(textwrap.indent(sandbox.service_logs(), "   "), file=sys.stderr)
        return False
    launched = sandbox.newly_launched()
    if launched:
        print(f"   launched: {', '.join(launched)}")
    for line in lines:
        print(f"   {line}")
    print(f"   [{time.perf_counter() - begin:.1f} s]", flush=True)
    return True


def _clean_up(sandbox: Sandbox) -> bool:
    """Close the sandbox. False if a process is left."""
    # A second Ctrl-C must not interrupt this: it would leave services running.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        sandbox.close()
    except StepError as exc:
        print(f"FAILED: {exc}", file=sys.stderr)
        return False
    return True


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
