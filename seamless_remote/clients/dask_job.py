"""The future of a transformation on Dask, with errors that say what became of the job.

Imports Dask: import this module when a scheduler is connected to.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

from distributed import Future


class JobFuture(Future):  # type: ignore[misc]
    """Stands for the same job as `future`.

    seamless-dask makes the traceback of what `result()` raises the error text of a transformation.
    Dask's own error for a job whose scheduler is gone, or whose client was closed, says only that
    its key was cancelled. `explain`, given that error, has the one to raise instead; None: keep it.
    """

    def __init__(self, future: Future, explain: Callable[[Exception], Exception | None]) -> None:
        super().__init__(future.key, future.client)
        self._explain = explain

    def result(self, timeout: Any = None) -> Any:
        """The job's result; blocks until it is known, for `timeout` seconds at most if given.

        ServiceError: the connection to the scheduler ended first.
        """
        try:
            return super().result(timeout)
        except (CancelledError, OSError, RuntimeError) as exc:
            # OSError: the scheduler went away while the result was fetched. RuntimeError: the
            # client's loop is closed.
            explained = self._explain(exc)
            if explained is None:
                raise
            # The text is the user's. That a key was cancelled tells them nothing more.
            raise explained from None
