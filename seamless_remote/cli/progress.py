"""A progress bar on standard error, for a terminal. Whatever fails there ends the bar only."""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
from contextlib import suppress
from typing import Any

logger = logging.getLogger(__name__)

DELAY_SECONDS = 1.0
"""The bar appears after this time, so that a short transfer shows none."""


class Progress:
    """Counts bytes, and shows a bar once `show` has been called. For several threads at once."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._count = 0
        self._bar: Any = None
        self._terminal: _Terminal | None = None
        self._lock = threading.Lock()

    def show(self) -> None:
        """Show a bar, starting with the bytes counted so far."""
        with self._lock:
            try:
                self._terminal = _Terminal(sys.stderr.fileno())
                self._bar = _make_bar(self._title, self._count, self._terminal)
            except Exception as exc:
                self._end(exc)

    def expect(self, total: int) -> None:
        """Set the total number of bytes on the bar."""
        with self._lock:
            if self._bar is not None:
                self._bar.total = total
            self._draw("refresh")

    def rename(self, title: str) -> None:
        """Change what stands before the bar."""
        with self._lock:
            self._title = title
            if self._bar is not None:
                self._bar.desc = title
            self._draw("refresh")

    def advance(self, count: int) -> None:
        """Add `count` bytes; a negative number takes back what has to come again."""
        with self._lock:
            self._count += count
            if self._bar is not None:
                self._draw("update", self._count - self._bar.n)

    def close(self) -> None:
        """Remove the bar, if there is one."""
        with self._lock:
            self._draw("close")
            self._bar = None
            if self._terminal is not None:
                self._terminal.close()
                self._terminal = None

    def _draw(self, what: str, *arguments: Any) -> None:
        if self._bar is None:
            return
        try:
            getattr(self._bar, what)(*arguments)
        except Exception as exc:
            self._end(exc)

    def _end(self, reason: Exception) -> None:
        logger.debug("no progress bar any more: %s", reason)
        if self._bar is not None:
            # What it would do at its end fails as well.
            self._bar.disable = True
            self._bar = None


def wants_progress(quiet: bool) -> bool:
    """Whether to show a bar: unless `--quiet` is given, if standard error is a terminal."""
    return not quiet and sys.stderr is not None and sys.stderr.isatty()


class _Terminal:
    """A terminal that is never waited for: what it does not take at once is dropped.

    It may be stopped (Ctrl-S), and it stops a process in the background that writes to it, if its
    user has said so (`stty tostop`).
    """

    encoding = "utf-8"

    def __init__(self, descriptor: int) -> None:
        self.encoding = sys.stderr.encoding or self.encoding
        try:
            # Opened anew, it is non-blocking for nobody else.
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            self._descriptor = os.open(os.ttyname(descriptor), flags)
        except OSError:
            self._descriptor = os.dup(descriptor)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLOUT)

    def fileno(self) -> int:
        return self._descriptor

    def write(self, text: str) -> None:
        if self._poll.poll(0) and self._is_ours():
            with suppress(BlockingIOError):
                os.write(self._descriptor, text.encode(self.encoding, "replace"))

    def flush(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        os.close(self._descriptor)

    def _is_ours(self) -> bool:
        """Whether this process is in the foreground; also if nobody can tell."""
        try:
            return os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:
            return True


def _make_bar(title: str, count: int, terminal: _Terminal) -> Any:
    from tqdm import tqdm

    # tqdm's default lock works across processes and starts a helper process; its monitor is a
    # thread. The tools need neither.
    tqdm.set_lock(threading.RLock())
    tqdm.monitor_interval = 0
    return tqdm(
        desc=title,
        initial=count,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        leave=False,
        dynamic_ncols=True,
        file=terminal,
    )
