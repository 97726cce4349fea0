"""What seamless-dask holds as its client for as long as a stage is active."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ServiceError
from .dask_connection import SchedulerConnection


class Gateway:
    """Stands for the `SeamlessDaskClient` of the connection that is open at the time.

    It is handed to seamless-dask once, at activation, and stays while connections come and go:
    between two clients there would be none, and transformations would run elsewhere. Nothing of
    seamless-dask is subclassed: each connection has a `SeamlessDaskClient` of its own, with caches
    of its own, and this passes on whatever is asked of it.

    A call waits while a scheduler is launched or connected to. `acquire` gives the open connection,
    and `current` the one that there is, or None.
    """

    # seamless-dask looks for these in a client that it closes.
    _dummy_dask_client = None
    _dummy_scheduler_handle = None

    def __init__(
        self,
        acquire: Callable[[], SchedulerConnection],
        current: Callable[[], SchedulerConnection | None],
    ) -> None:
        self._acquire = acquire
        self._current = current

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._acquire().seamless_client, name)

    @property
    def client(self) -> Any:
        """Dask's client, or None while there is none. Does not wait."""
        connection = self._current()
        return None if connection is None else connection.client

    def submit_transformation(self, submission: Any, **options: Any) -> Any:
        """Submit a transformation; its futures raise a ServiceError if the scheduler dies."""
        return self._acquire().submit(submission, **options)

    def get_fat_checksum_future(self, checksum: Any) -> Any:
        """The future of an input's buffer."""
        return self._acquire().ask("get_fat_checksum_future", checksum)

    def get_fat_finger_checksum_future(self, checksum: Any) -> Any:
        """The same, for an input that may have to be computed again."""
        return self._acquire().ask("get_fat_finger_checksum_future", checksum)

    def ensure_fat_future(self, futures: Any) -> Any:
        """The future of the result of a transformation, for another one that depends on it."""
        return self._result_of(futures, "ensure_fat_future", "get_fat_checksum_future")

    def ensure_fat_finger_future(self, futures: Any) -> Any:
        """The same, for one whose result may have to be computed again."""
        return self._result_of(
            futures, "ensure_fat_finger_future", "get_fat_finger_checksum_future"
        )

    def release_transformation_futures(self, futures: Any, *, cancel: bool = True) -> None:
        """Let go of a transformation's futures. Those of a former connection ended with it."""
        connection = self._current()
        if connection is not None and connection.owns(futures.base):
            connection.seamless_client.release_transformation_futures(futures, cancel=cancel)

    def cancel_by_checksum(self, tf_checksum: Any) -> bool:
        """Cancel a transformation; False if none runs, as when no scheduler is connected to."""
        connection = self._current()
        if connection is None or connection.has_ended:
            return False
        return bool(connection.seamless_client.cancel_by_checksum(tf_checksum))

    def _result_of(self, futures: Any, of_job: str, of_checksum: str) -> Any:
        connection = self._acquire()
        if connection.owns(futures.base):
            return connection.ask(of_job, futures)
        # It was run at a former scheduler, or by the parent of a forked process.
        if futures.result_checksum is None:
            raise ServiceError(
                "an input of this transformation was being computed at a Dask scheduler that this "
                "process is no longer connected to: run it again, then this one"
            )
        return connection.ask(of_checksum, futures.result_checksum)
