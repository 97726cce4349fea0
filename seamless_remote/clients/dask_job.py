"""The future of a transformation on Dask, with errors that say what became of the job.

Imports Dask: import this module when a scheduler is connected to.
"""

from __future__ import annotations

import weakref
from concurrent.futures import CancelledError
from typing import Any, Protocol

from distributed import Future


class Connection(Protocol):
    """What a job knows of the connection that it was submitted through."""

    @property
    def has_ended(self) -> bool:
        """Whether no answer comes through it any more."""

    def explain(self, failure: Exception | None) -> Exception | None:
        """The error for a wait that ended with `failure`; None if it had another cause."""


class JobFuture(Future):  # type: ignore[misc]
    """The thin future of a transformation, the one that is waited for, in the place of Dask's own.

    seamless-dask makes the traceback of what `result()` raises the error text of a transformation.
    Dask's own error for a job whose scheduler is gone, or whose client was closed, says only that
    its key was cancelled.
    """

    def __init__(self, futures: Any, connection: Connection) -> None:
        super().__init__(futures.thin.key, futures.thin.client)
        self._connection = connection
        self._futures = weakref.ref(futures)

    def result(self, timeout: Any = None) -> Any:
        """The job's result; blocks until it is known, for `timeout` seconds at most if given.

        ServiceError: the connection to the scheduler ended first.
        """
        connection = self._connection
        if connection.has_ended:
            # In a forked child, for one: Dask would wait for a thread of the parent's.
            raise connection.explain(None) or CancelledError()
        try:
            result = super().result(timeout)
        except (CancelledError, OSError, RuntimeError) as exc:
            # OSError: the scheduler went away while the result was fetched. RuntimeError: the
            # client's loop is closed.
            explained = connection.explain(exc)
            if explained is None:
                raise
            # The text is the user's. That a key was cancelled tells them nothing more.
            raise explained from None
        futures = self._futures()
        if futures is not None and futures.result_checksum is None:
            # A callback notes it a moment later; by then this process may be forked, or the
            # scheduler gone, and a transformation that depends on this one needs it.
            futures.result_checksum = result[1]
        return result
