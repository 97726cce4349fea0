"""Shows the steps: what each did, what it launched and what it took; and cleans up after them."""

from __future__ import annotations

import platform
import signal
import sys
import textwrap
import time

from .. import __version__
from . import programs
from .place import Place, StepError
from .steps import STEPS, Step, Story


def show() -> int:
    """Run all steps in a place of their own, until one fails; gives the exit status."""
    signal.signal(signal.SIGTERM, _interrupt)
    begin = time.perf_counter()
    place = Place()
    status = 0
    try:
        _introduce(place)
        story = Story()
        for number, step in enumerate(STEPS, 1):
            if not _tell(number, step, place, story):
                status = 1
                break
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        status = 130
    finally:
        ended = _end(place)
    if not ended:
        return 1
    if status == 0:
        print(f"\nAll done in {time.perf_counter() - begin:.0f} s; no process and no file is left.")
    return status


def _introduce(place: Place) -> None:
    print(
        f"seamless-remote {__version__} on Python {platform.python_version()}, with the real"
        f" services on this machine.\nThe demo's HOME is {place.home}; it goes at the end.\n\n"
        "The user's transformation, the same at every level:\n\n"
        + textwrap.indent(programs.TRANSFORMATION, "    "),
        flush=True,
    )


def _tell(number: int, step: Step, place: Place, story: Story) -> bool:
    """Run one step and print what came of it; False where it failed."""
    print(f"\n{number}. {step.__doc__}", flush=True)
    begin = time.perf_counter()
    try:
        lines = list(step(place, story))
    except StepError as exc:
        print(f"   FAILED: {exc}", file=sys.stderr)
        print(textwrap.indent(place.service_logs(), "   "), file=sys.stderr)
        return False
    launched = place.newly_launched()
    if launched:
        print(f"   launched: {', '.join(launched)}")
    for line in lines:
        print(f"   {line}")
    print(f"   [{time.perf_counter() - begin:.1f} s]", flush=True)
    return True


def _end(place: Place) -> bool:
    """End everything; a second Ctrl-C does not keep it from that. False where something is left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        place.close()
    except StepError as exc:
        print(f"FAILED: {exc}", file=sys.stderr)
        return False
    return True


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
