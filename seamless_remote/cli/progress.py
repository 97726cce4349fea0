"""A progress bar on standard error, for a terminal."""

from __future__ import annotations

import sys
from typing import Any

DELAY_SECONDS = 1.0
"""The bar appears after this time, so that a short transfer shows none."""


class Progress:
    """Counts bytes, and shows a bar once `show` has been called. `advance` works in any thread."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._count = 0
        self._bar: Any = None

    def show(self) -> None:
        """Show a bar, starting with the bytes counted so far."""
        self._bar = _make_bar(self._title, self._count)

    def expect(self, total: int) -> None:
        """Set the total number of bytes on the bar."""
        if self._bar is not None:
            self._bar.total = total
            self._bar.refresh()

    def advance(self, count: int) -> None:
        """Add `count` bytes."""
        self._count += count
        bar = self._bar
        if bar is not None:
            bar.update(self._count - bar.n)

    def restart(self) -> None:
        """Start again from 0 bytes."""
        self._count = 0
        if self._bar is not None:
            self._bar.reset()

    def close(self) -> None:
        """Remove the bar, if there is one."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()


def wants_progress(quiet: bool) -> bool:
    """Whether to show a bar: unless `--quiet` is given, if standard error is a terminal."""
    return not quiet and sys.stderr is not None and sys.stderr.isatty()


def _make_bar(title: str, count: int) -> Any:
    import threading

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
        file=sys.stderr,
    )
