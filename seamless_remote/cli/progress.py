"""A progress bar on standard error, where a person is watching."""

from __future__ import annotations

import sys
from typing import Any

DELAY_SECONDS = 1.0
"""What takes less time than this shows no bar."""


class Progress:
    """Counts bytes, from any thread, and shows them once it is told to."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._count = 0
        self._bar: Any = None

    def show(self) -> None:
        """Show a bar from now on."""
        self._bar = _make_bar(self._title, self._count)

    def expect(self, total: int) -> None:
        """Tell how many bytes there will be, once that is known."""
        if self._bar is not None:
            self._bar.total = total
            self._bar.refresh()

    def advance(self, count: int) -> None:
        """Count `count` more bytes."""
        self._count += count
        bar = self._bar
        if bar is not None:
            bar.update(self._count - bar.n)

    def restart(self) -> None:
        """Count from 0 again."""
        self._count = 0
        if self._bar is not None:
            self._bar.reset()

    def close(self) -> None:
        """Take the bar off the screen, if there is one."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()


def wants_progress(quiet: bool) -> bool:
    """Whether there is a terminal to show a bar on, and nobody objects."""
    return not quiet and sys.stderr is not None and sys.stderr.isatty()


def _make_bar(title: str, count: int) -> Any:
    import threading

    from tqdm import tqdm

    # Its own lock is one between processes, with a helper process; its monitor is a thread.
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
