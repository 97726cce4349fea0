"""Errors that have no caller to be raised to: each breaks the promise that nothing is left."""

from __future__ import annotations

import logging
import sys
import threading
import traceback

from .tally import Tally


def listen_for_errors(tally: Tally) -> None:
    """Count as a violation what threads die of, what finalizers raise, what asyncio complains of.

    Warnings of unclosed resources are errors in finalizers, where Python runs with
    `-W error::ResourceWarning`.
    """

    def unraisable(args: sys.UnraisableHookArgs) -> None:
        text = "".join(traceback.format_exception(args.exc_value)) if args.exc_value else ""
        tally.violation(f"{args.err_msg or 'Exception ignored in'} {args.object!r}\n{text}")

    def in_thread(args: threading.ExceptHookArgs) -> None:
        text = "".join(traceback.format_exception(args.exc_value)) if args.exc_value else ""
        tally.violation(f"{args.thread} died\n{text}")

    sys.unraisablehook = unraisable
    threading.excepthook = in_thread
    logging.getLogger("asyncio").addHandler(_Complaints(tally, logging.ERROR))
    logging.getLogger("seamless_remote").addHandler(_Complaints(tally, logging.CRITICAL))


class _Complaints(logging.Handler):
    def __init__(self, tally: Tally, level: int) -> None:
        super().__init__(level)
        self._tally = tally

    def emit(self, record: logging.LogRecord) -> None:
        self._tally.violation(f"{record.name}: {self.format(record)}")
