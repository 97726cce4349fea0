"""Jobs: transformations that run at a jobserver.

seamless-config activates this module; seamless-transformer calls it. With several jobservers a job
goes to the one with the fewest jobs in flight that can be reached.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import anyio
from seamless import Checksum

from . import buffer_remote, database_remote
from .activation.fan_out import at_every
from .activation.registry import Registry
from .checksums import checksum_hex
from .clients import retry_policy
from .clients.health import Health
from .clients.job_places import job_places
from .clients.jobserver import Job, JobserverClient, NoRoomError
from .clients.launched_jobserver import JobserverLaunchedClient
from .clients.retrying import PATIENCE
from .errors import ConnectError, LaunchError, OwnLimitError, RemoteError, ServiceError
from .launching.placement import Placement
from .nursery.calling import call, call_blocking
from .nursery.calls import Call
from .nursery.event_loops import in_trio_task, running_loop
from .nursery.process import this_process

logger = logging.getLogger(__name__)

T = TypeVar("T")

DISABLED = False
"""Set to True, it makes `activate()` do nothing."""

LONGEST_PAUSE = 2.0
"""Seconds between two rounds of all jobservers, at most."""

STATUSES = ("running", "canceled", "failed", "done")
"""What a jobserver says of a job, the most telling first; the rest is `not-running`."""


def _make_launched(placement: Placement, readonly: bool) -> JobserverClient:
    return JobserverLaunchedClient(placement)


def _sort(clients: Sequence[JobserverClient]) -> None:
    """Jobservers are all of one kind."""


_registry: Registry[JobserverClient] = Registry(
    "jobserver_remote", _make_launched, _sort, is_disabled=lambda: DISABLED, substages=True
)

ensure_initialized = _registry.ensure_initialized
inspect_extern_clients = _registry.inspect_extern_clients
inspect_launched_clients = _registry.inspect_launched_clients


def define_launched_client(
    cluster: str | None = None,
    project: str | None = None,
    subproject: str | None = "",
    stage: str | None = "",
    substage: str | None = "",
) -> None:
    """Define a jobserver to launch. None stands for the part that is currently selected."""
    _registry.define_launched_client(False, cluster, project, subproject, stage, substage)


def define_extern_client(name: str, type_: str, *, url: str | None = None) -> None:
    """Define a client of a running jobserver, in place of an earlier one of that name.

    `type_` is `"jobserver"`. TypeError for another type, ValueError if the url does not fit.
    """
    if type_ != "jobserver":
        raise TypeError(
            f"extern client {name!r}: type {type_!r} is not supported; "
            "supported is 'jobserver' (with a url)"
        )
    if url is None:
        raise ValueError(f"extern client {name!r}: a jobserver needs a url")
    _registry.define_extern(name, JobserverClient(url=url))


def activate(
    *,
    extra_launched_clients: Iterable[Mapping[str, Any]] = (),
    extern_clients: Iterable[str] = (),
    no_main: bool = False,
) -> None:
    """Put clients in effect: the current cluster's jobserver, unless `no_main`, and the named ones.

    Its launched clients are up when it returns. ServiceError: one could not be brought up.
    """
    if not DISABLED:
        _registry.activate(
            extra_launched_clients=extra_launched_clients,
            extern_clients=extern_clients,
            no_main=no_main,
        )
        _registry.ensure_initialized()


async def run_transformation(
    transformation_dict: Mapping[str, Any],
    *,
    tf_checksum: Checksum,
    tf_dunder: Mapping[str, Any] | None,
    scratch: bool,
    strict_dunder: bool = False,
) -> Any:
    """Run a transformation at a jobserver, however long it takes, and give its result.

    A dict with `result_checksum` (a Checksum) or `remote_job_written`, and `record_runtime`; from
    an older server a Checksum or the remote-job text. The user's code runs once. Only if the
    connection or the server is lost in mid-job may it run a second time, which is logged.

    Cancelling it asks the server to cancel the job, then the cancellation goes on.

    Raises:
        TransformationError: the transformation failed; the message is the server's text.
        TransformationCanceledError: it was canceled at the server.
        RefusedError: the server refuses it, for example because its record mode is another.
        ServiceError: no jobserver could be reached, or the job's fate is unknown.
        RuntimeError: there is no jobserver client.
    """
    from seamless_transformer.record_runtime import get_record_mode

    clients = _clients("running a transformation")
    checksum = checksum_hex(tf_checksum)
    payload = {
        "transformation_dict": transformation_dict,
        "tf_checksum": checksum,
        "tf_dunder": tf_dunder or {},
        "scratch": scratch,
        "strict_dunder": strict_dunder,
        "record": get_record_mode(),
    }

    async def recover(logged: Checksum | None) -> Checksum | None:
        return None if payload["record"] else await _known_result(tf_checksum, logged, scratch)

    job = Job(checksum, json.dumps(payload).encode(), recover)
    return await call(f"job {checksum}", _run_in_turn, clients, job)


async def cancel_transformation_async(tf_checksum: Checksum) -> bool:
    """Cancel a transformation at all jobservers; True if one had it."""
    return any(await call("canceling a job", at_every, *_cancellation(tf_checksum)))


async def transformation_status_async(tf_checksum: Checksum) -> str:
    """What the jobservers say of a transformation: `running`, `canceled`, `failed`, `done`, or
    `not-running` if none knows it.
    """
    return _first_of(await call("status of a job", at_every, *_status_question(tf_checksum)))


def cancel_transformation(tf_checksum: Checksum) -> bool:
    """`cancel_transformation_async` for synchronous code. RuntimeError inside a running loop."""
    _require_no_loop("cancel_transformation")
    return any(call_blocking("canceling a job", at_every, *_cancellation(tf_checksum)))


def transformation_status(tf_checksum: Checksum) -> str:
    """`transformation_status_async` for synchronous code. RuntimeError inside a running loop."""
    _require_no_loop("transformation_status")
    return _first_of(call_blocking("status of a job", at_every, *_status_question(tf_checksum)))


# What `at_every` does, with which clients and about which checksum.


def _cancellation(tf_checksum: Checksum) -> tuple[Any, ...]:
    clients = _clients("canceling a transformation")
    return clients, JobserverClient.cancel, checksum_hex(tf_checksum)


def _status_question(tf_checksum: Checksum) -> tuple[Any, ...]:
    clients = _clients("the status of a transformation")
    return clients, JobserverClient.get_status, checksum_hex(tf_checksum)


def _first_of(found: Sequence[str]) -> str:
    """The status that counts, of those that the servers gave."""
    return next((status for status in STATUSES if status in found), "not-running")


def _clients(what: str) -> tuple[JobserverClient, ...]:
    clients = _registry.active()
    if not clients:
        # seamless-cancel looks for these words.
        raise RuntimeError(f"No jobserver clients have been activated; {what} needs one")
    clients[0].require_usable(what)
    return clients


def _require_no_loop(name: str) -> None:
    if running_loop() is not None or in_trio_task():
        raise RuntimeError(
            f"{name}() blocks and cannot be called inside a running event loop; "
            f"await {name}_async() instead"
        )


async def _known_result(
    tf_checksum: Checksum, logged: Checksum | None, scratch: bool
) -> Checksum | None:
    """The result of a job that was lost, if it is known; None: the job has to run again.

    `logged` is what the server's own log names. A result counts if a store has its buffer, or if
    none is to have it (`scratch`).
    """
    try:
        recorded = await database_remote.get_transformation_result(tf_checksum)
        for result in filter(None, (logged, recorded)):
            if scratch or (await buffer_remote.get_buffer_lengths([result]))[0] is not None:
                return result
    except RemoteError as exc:
        logger.info("no look for the result of job %s: %s", tf_checksum, exc)
    return None


def _by_load(client: JobserverClient) -> tuple[bool, int]:
    return client.health.state is Health.DOWN, client.in_flight


async def _run_in_turn(call: Call, clients: Sequence[JobserverClient], job: Job) -> Any:
    """Run a job when its turn comes: each holds a connection, and so a descriptor, to its end."""
    call.is_long = True
    jobs = this_process().jobs
    places = job_places(call.settings, jobs.in_flight)
    if jobs.places != places:
        jobs.resize(places)
    share = jobs.take_now(call.loop)
    if share is None:
        call.waits_for = f"its turn: {places} jobs are in flight"
        share = await jobs.take(call.loop)
    try:
        return await _run_somewhere(call, clients, job)
    finally:
        jobs.give_back(share)


async def _run_somewhere(call: Call, clients: Sequence[JobserverClient], job: Job) -> Any:
    """Run a job at the first server that takes it; those that cannot be reached are passed over."""
    started = time.monotonic()
    failure: ServiceError
    for round_ in itertools.count(1):
        patience = 0.0
        for client in sorted(clients, key=_by_load):
            try:
                return await client.run(call, job)
            except (ConnectError, LaunchError) as exc:
                if isinstance(exc, LaunchError) and not client.address.has_run:
                    raise
                failure = exc
                patience = max(patience, _patience_after(exc))
                if not isinstance(exc, (NoRoomError, OwnLimitError)):
                    client.health.failure(exc)
                logger.info("%s does not get job %s: %s", client.describe(), job.checksum, exc)
        if round_ >= call.settings.max_tries and time.monotonic() - started >= patience:
            break
        call.waits_for = f"the next try to reach a jobserver: {failure}"
        await anyio.sleep(retry_policy.pause(round_, random.random, cap=LONGEST_PAUSE))
    tried = ", ".join(client.describe() for client in clients)
    what = f"no jobserver takes job {job.checksum}: {tried}, tried {round_} times each"
    if isinstance(failure, OwnLimitError):
        raise OwnLimitError(f"{what}; last: {failure}. Close what is not needed") from failure
    raise ServiceError(
        f"{what}; last: {failure}. Is the service running, and can this machine reach it?"
    ) from failure


def _patience_after(failure: ServiceError) -> float:
    """For how many seconds a job that was not sent is worth further rounds, whatever their number.

    A server that is well makes room some time, and other jobs give back what this process lacks. A
    server that was there before may come back.
    """
    if isinstance(failure, OwnLimitError):
        return math.inf if this_process().jobs.in_flight > 1 else PATIENCE
    if isinstance(failure, NoRoomError):
        return math.inf
    return PATIENCE if isinstance(failure, LaunchError) else 0.0
