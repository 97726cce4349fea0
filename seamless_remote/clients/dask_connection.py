"""The connection to one Dask scheduler: Dask's client, and seamless-dask's on top of it.

Synchronous, as `distributed.Client` is: its sockets live in Dask's own loop. Dask and seamless-dask
are imported when a connection is opened. One that has ended is not mended: the handle makes another
(see `daskserver`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import Any

from ..errors import ServiceError
from ..launching.launch import Launched, http_url
from . import scheduler_words
from .scheduler_probe import CONNECT_TIMEOUT, Evidence, probe

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 2.0
"""Seconds that closing a client may take."""

LOSS_NOTICE = 1.0
"""Seconds within which Dask notices a lost scheduler, after a job's result could not be fetched."""

CALLBACK_THREAD = "Dask-Callback-Thread"
"""The thread in which Dask runs the callbacks of all futures, from the first one on."""


class SchedulerConnection:
    """The clients of one scheduler in this process, from `open` to `close`.

    `on_change` is called, in any thread, when the scheduler is lost and when it gets a job. Whoever
    waits for a job of a lost scheduler gets an error that says what happened.
    """

    def __init__(self, name: str, launched: Launched, on_change: Callable[[], None]) -> None:
        self.name = name
        self.launched = launched
        self.hostname: str = launched.result["hostname"]
        self.port: int = launched.result["port"]
        self.address = f"tcp://{self.hostname}:{self.port}"
        self._where = f"the Dask scheduler of {name} at {self.address}"
        dashboard_port = launched.result.get("dashboard_port")
        self.http = None if dashboard_port is None else http_url(self.hostname, int(dashboard_port))
        """Where it answers HTTP, the dashboard's pages among others."""
        self.opened_at = time.monotonic()
        self.client: Any = None
        self.seamless_client: Any = None
        self._on_change = on_change
        self._lock = threading.Lock()
        self._diagnosis = threading.Lock()
        self._reason: str | None = None
        self._ended = threading.Event()
        self._closed = False
        self._jobs: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def dashboard(self) -> str | None:
        """The URL of the dashboard's first page."""
        return None if self.http is None else f"{self.http}/status"

    @property
    def has_ended(self) -> bool:
        """Whether the scheduler is lost to it, or it was closed. It does not come back."""
        return self._ended.is_set()

    @property
    def is_local_cluster(self) -> bool:
        """Whether the workers are processes of the scheduler's own."""
        return "LocalCluster" in self.launched.launch_dict["cluster_string"]

    def open(self, remote_clients: dict[str, Any], *, interactive: bool) -> None:
        """Connect, and set the workers up with `remote_clients`.

        With `interactive`, seamless-dask waits for a worker, for 20 s at most. ServiceError: the
        scheduler does not answer, or the connection was closed meanwhile.
        """
        import distributed
        from seamless_dask.client import SeamlessDaskClient

        evidence, words = self.diagnose()
        if evidence is not Evidence.ANSWERS:
            raise self.unanswered(evidence, words)
        try:
            client = distributed.Client(
                self.address, timeout=f"{CONNECT_TIMEOUT}s", set_as_default=False
            )
        except (OSError, ValueError) as exc:
            raise self.unanswered(Evidence.SILENT, repr(exc)) from exc
        with self._lock:
            self.client = client
            # When a client loses its scheduler, Dask cancels every future that it knows, be it of a
            # job or not. So this one, of no job, tells of the loss at once.
            self._sentinel = distributed.Future("seamless-remote-connection", client)
            client.loop.add_callback(self._await_loss)
            closed = self._closed
        if closed:
            self._close_clients()
            raise ServiceError(f"the connection to {self.address} was closed while it was opened")
        try:
            self.seamless_client = SeamlessDaskClient(
                client,
                worker_plugin_workers=self.launched.launch_dict["file_parameters"]["cores"],
                remote_clients=remote_clients,
                is_local_cluster=self.is_local_cluster,
                interactive=interactive,
            )
        except Exception as exc:
            # Dask has many errors for a scheduler that goes away while it is spoken to.
            raise self.unanswered(Evidence.SILENT, repr(exc)) from exc

    def submit(self, submission: Any, **options: Any) -> Any:
        """Submit a transformation to seamless-dask; its futures, whose errors explain themselves.

        ServiceError: an input is the result of a job at a scheduler that is gone.
        """
        from .dask_job import JobFuture

        for future in submission.input_futures.values():
            if not self.owns(future):
                raise ServiceError(
                    f"the Dask scheduler of {self.name} was replaced while this transformation was "
                    "being submitted, and an input of it was lost: run it again"
                )
        futures = self.ask("submit_transformation", submission, **options)
        if not isinstance(futures.thin, JobFuture):
            futures.thin = JobFuture(futures, self)
            self._jobs.add(futures.thin)
            self._on_change()
        return futures

    def ask(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method of seamless-dask's client. ServiceError: the connection ended meanwhile."""
        try:
            return getattr(self.seamless_client, method)(*args, **options)
        except Exception as exc:
            # Not Dask's "Client is closed", if it was closed here because its scheduler died.
            explained = self.explain(exc)
            if explained is None:
                raise
            raise explained from None

    def owns(self, future: Any) -> bool:
        """Whether a Dask future is of a job that was submitted here."""
        return future.client is self.client

    def pending(self) -> int:
        """How many jobs of this process are not done."""
        return sum(not job.done() for job in list(self._jobs))

    def diagnose(self) -> tuple[Evidence, str]:
        """Ask the scheduler's port; if it was lost, note what becomes of the jobs. Blocks."""
        with self._diagnosis:
            evidence, words = probe(self.hostname, self.port)
            if self.has_ended:
                self._conclude(evidence, words)
            return evidence, words

    def lose(self, evidence: Evidence, words: str) -> None:
        """The scheduler is lost, by what its port says: end the connection, if it has not ended."""
        self._ended.set()
        with self._diagnosis:
            self._conclude(evidence, words)

    def explain(self, failure: Exception | None) -> Exception | None:
        """The error for a job whose wait ended with `failure` (None: it was over before).

        None if that had another cause. Blocks while the scheduler's port is asked.
        """
        if isinstance(failure, CancelledError):
            # Dask cancels them all at once.
            if self._sentinel.cancelled():
                self._lost()
        elif isinstance(failure, OSError):
            self._ended.wait(LOSS_NOTICE)
        if not self.has_ended:
            return None
        if self._reason is None:
            self.diagnose()
        return ServiceError(self._reason)

    def abandon(self) -> None:
        """In a forked child: make Dask's objects inert. Their loop's thread is the parent's."""
        self._reason = (
            f"this transformation was started at the Dask scheduler of {self.name} by the parent "
            "of this process, which alone can wait for it; make it anew here"
        )
        # A new one: a thread of the parent's may have held its lock.
        self._ended = threading.Event()
        self._ended.set()
        client = self.client
        if client is not None:
            # A client that is closed is not closed again when it is collected, and futures of an
            # earlier generation are not released: either would write to the parent's loop.
            client.status = "closed"
            client.generation += 1

    def close(self, reason: str) -> None:
        """Disconnect; those who wait for a job get a ServiceError with `reason`, if none yet.

        Takes a few seconds at most. Safe to call twice, and while `open` is under way.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if not self.has_ended:
                self._reason = reason
            self._ended.set()
        self._close_clients()

    def unanswered(self, evidence: Evidence, words: str) -> ServiceError:
        """The error for a scheduler that does not answer, for the reason in `words`."""
        return ServiceError(scheduler_words.unanswered(self._where, evidence, words) + self._log())

    async def _await_loss(self) -> None:
        """In Dask's loop: wait for the end of the connection."""
        with suppress(CancelledError):
            await self._sentinel
        self._lost()

    def _lost(self) -> None:
        if not self.has_ended:
            self._ended.set()
            self._on_change()

    def _conclude(self, evidence: Evidence, words: str) -> None:
        if self._reason is None:
            self._reason = scheduler_words.fate_of_job(self._where, evidence, words) + self._log()

    def _log(self) -> str:
        return scheduler_words.end_of_log(self.launched)

    def _close_clients(self) -> None:
        client, seamless_client = self.client, self.seamless_client
        if client is not None and client.status not in ("closed", "closing"):
            self._end_jobs(client)
        if seamless_client is not None:
            # Its thread that prunes caches has no other way to end (seamless-dask 0.4).
            seamless_client._prune_stop.set()
            if seamless_client._prune_thread is not None:
                seamless_client._prune_thread.join(CLOSE_TIMEOUT)
        if client is not None:
            try:
                with _quiet_reconnection():
                    client.close(timeout=f"{CLOSE_TIMEOUT}s")
            except TimeoutError:
                logger.warning(
                    "the Dask client of %s did not close within %g s", self.name, CLOSE_TIMEOUT
                )

    def _end_jobs(self, client: Any) -> None:
        """End the waits for jobs, then let the callbacks of their futures run.

        Dask runs those in a thread of its own, and seamless-dask's ask the client's loop: one that
        came when the loop has just ended would wait for ever, and so would the interpreter at its
        end. One that comes when the interpreter ends is a traceback of tornado's.
        """

        def end_waits() -> None:
            for state in list(client.futures.values()):
                if state.status == "pending":
                    state.cancel(reason="closed", msg=self._reason)

        client.loop.add_callback(end_waits)
        if not any(each.name.startswith(CALLBACK_THREAD) for each in threading.enumerate()):
            return
        # A callback of seamless-dask's adds another one, hence twice.
        for _ in range(2):
            called = threading.Event()
            self._sentinel.add_done_callback(lambda _, called=called: called.set())
            if not called.wait(CLOSE_TIMEOUT):
                logger.debug("callbacks of the Dask client of %s still run", self.name)
                return


@contextmanager
def _quiet_reconnection() -> Iterator[None]:
    """Keep Dask from logging a traceback when its own attempt to reconnect is cancelled."""

    def is_news(record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))

    dask_logger = logging.getLogger("distributed.client")
    dask_logger.addFilter(is_news)
    try:
        yield
    finally:
        dask_logger.removeFilter(is_news)
