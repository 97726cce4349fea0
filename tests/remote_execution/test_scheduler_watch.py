"""How a Dask scheduler is watched: what counts as evidence, and what is said of it."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import remote_http_launcher
from services import HOST, Home

from seamless_remote import LaunchError, ServiceError, Settings
from seamless_remote.clients import scheduler_probe, scheduler_watch, worker_wait
from seamless_remote.clients.daskserver import DaskserverLaunchedHandle
from seamless_remote.clients.scheduler_probe import Evidence, probe
from seamless_remote.clients.worker_wait import Load, WorkerWait, is_waiting, reason, refusals_in
from seamless_remote.launching.launch import Launched
from seamless_remote.launching.placement import Placement
from seamless_remote.nursery.calls import Call
from seamless_remote.nursery.event_loops import running_loop

REFUSED_JOB = """\
INFO:Scheduler at: tcp://127.0.0.1:20000
RuntimeError: Command exited with non-zero exit code.
Exit code: 1
Command:
sbatch /tmp/tmp1.sh
stdout:

stderr:
sbatch: error: invalid partition specified: nosuch
sbatch: error: Batch job submission failed: Invalid partition name specified
""".splitlines()

SQUEUE = """#!/bin/sh
case "$*" in *dask-worker*) cat "$0.answer" ;; esac
"""


@contextmanager
def listener(greeting: bytes | None) -> Iterator[int]:
    """A port that greets each connection; None: that closes it without a word."""
    with socket.create_server((HOST, 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(greeting or b"")

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def launched(home: Home, cluster: str = "distributed::LocalCluster", **more: Any) -> Launched:
    """A scheduler as it was launched under this HOME, with its log."""
    launch_dict = {
        "key": "daskserver-test",
        "cluster_string": cluster,
        "command": "true",
        "workdir": "/tmp",
        "hostname": None,
        **more,
    }
    return Launched("", "", 1, launch_dict, {"hostname": HOST, "port": 1})


def test_only_a_closed_port_is_evidence_that_a_scheduler_is_gone(
    nowhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_probe, "CONNECT_TIMEOUT", 0.2)
    refusing = int(nowhere.rpartition(":")[2])
    assert probe(HOST, refusing)[0] is Evidence.GONE
    with listener(None) as port:
        assert probe(HOST, port)[0] is Evidence.GONE
    with listener(b"greeting") as port:
        assert probe(HOST, port)[0] is Evidence.ANSWERS
    with socket.create_server((HOST, 0)) as silent:
        assert probe(HOST, silent.getsockname()[1])[0] is Evidence.SILENT
    assert probe("nowhere.invalid", 1)[0] is Evidence.SILENT


@pytest.mark.parametrize(
    ("jobs", "load", "waits"),
    [
        (0, Load(workers=0, unrunnable=0), False),
        (0, Load(workers=0, unrunnable=3), False),
        (1, Load(workers=0, unrunnable=0), True),
        (1, Load(workers=2, unrunnable=0), False),
        (1, Load(workers=2, unrunnable=1), True),
    ],
)
def test_only_work_waits_for_workers(jobs: int, load: Load, waits: bool) -> None:
    assert is_waiting(jobs, load) is waits


def test_a_queues_refusal_is_read_off_the_schedulers_log() -> None:
    assert refusals_in(3 * REFUSED_JOB) == [
        "sbatch: error: invalid partition specified: nosuch",
        "sbatch: error: Batch job submission failed: Invalid partition name specified",
    ]
    assert refusals_in(["INFO:Lost all workers", "ERROR:the job failed"]) == []


def test_the_reason_for_a_wait_is_the_queues_own(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue = tmp_path / "squeue"
    answer = tmp_path / "squeue.answer"
    squeue.write_text(SQUEUE)
    squeue.chmod(0o700)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), os.environ["PATH"]]))
    on_slurm = launched(home, "dask_jobqueue::SLURMCluster")
    nobody, some = Load(workers=0, unrunnable=1), Load(workers=1, unrunnable=1)
    log = home.state / "server" / "daskserver-test.log"
    mine, others = f"{log}-%j.out|", f"{log.with_name('daskserver-other.log')}-%j.out|"
    queue = [
        f"PENDING|Resources|{mine}",
        f"PENDING|Priority|{mine}",
        f"PENDING|Resources|{mine}",
        f"RUNNING|None|{others}",
        f"COMPLETING|None|{mine}",
    ]
    answer.write_text("\n".join(queue))
    found = reason(on_slurm, nobody)
    assert found.endswith(": COMPLETING, PENDING (Priority), PENDING (Resources)")
    assert "SLURM" not in reason(launched(home), nobody)
    assert "resources" in reason(on_slurm, some)
    answer.write_text(f"RUNNING|None|{others}")
    log.parent.mkdir(parents=True)
    log.write_text("\n".join(REFUSED_JOB))
    assert REFUSED_JOB[-1] in reason(on_slurm, nobody)
    log.write_text("INFO:nothing")
    assert str(log) in reason(on_slurm, nobody)
    elsewhere = launched(home, hostname="frontend", ssh_hostname="frontend")
    assert "another machine" in reason(elsewhere, nobody)


async def test_a_wait_is_said_when_it_lasts_when_its_reason_changes_and_when_it_ends(
    anyio_backend: str,
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    reasons = iter(["first", "first", "second", "third"])
    monkeypatch.setattr(worker_wait, "reason", lambda *_: next(reasons))
    caplog.set_level(logging.INFO, "seamless_remote.clients.worker_wait")
    wait, scheduler = WorkerWait("a stage"), launched(home)
    nobody, some = Load(workers=0, unrunnable=1), Load(workers=1, unrunnable=0)

    async def look(jobs: int, load: Load) -> list[str]:
        caplog.clear()
        await wait.note(scheduler, jobs, load)
        return [record.levelname for record in caplog.records]

    assert await look(1, nobody) == []
    assert await look(1, nobody) == ["WARNING"]
    assert await look(1, nobody) == []
    assert await look(1, nobody) == ["WARNING"]
    assert "second" in caplog.text
    assert await look(1, some) == ["INFO"]
    # One that is cancelled before workers come ends without a word.
    assert await look(1, nobody) == []
    assert await look(1, nobody) == ["WARNING"]
    assert await look(0, nobody) == []
    assert wait.said is None


class PlayedHandle:
    """A handle whose scheduler is gone, and comes back at the third attempt."""

    name = "a stage"
    connection = None
    wakes: Any = None

    def __init__(self) -> None:
        self.needs_renewal = True
        self.attempts = 0
        self.back = anyio.Event()

    def renew(self) -> Future[Any]:
        self.attempts += 1
        outcome: Future[Any] = Future()
        if self.attempts < 3:
            outcome.set_exception(ServiceError("not yet"))
        else:
            self.needs_renewal = False
            outcome.set_result(None)
            self.back.set()
        return outcome

    @property
    def health(self) -> Any:
        return self


async def test_a_scheduler_that_cannot_be_launched_is_tried_again_until_it_can(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_watch, "FIRST_PAUSE", 0.001)
    handle: Any = PlayedHandle()
    async with anyio.create_task_group() as tasks:
        call = Call(running_loop(), Settings())
        tasks.start_soon(scheduler_watch.watch, handle, call)
        await handle.back.wait()
        tasks.cancel_scope.cancel()
    assert handle.attempts == 3


def test_a_launch_that_fails_is_each_callers_error_and_the_next_call_tries_again(
    cluster: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    launches: list[str] = []

    def fail(config: dict[str, Any], **_: Any) -> None:
        launches.append(config["key"])
        raise RuntimeError("no port is free")

    monkeypatch.setattr(remote_http_launcher, "run", fail)
    handle = DaskserverLaunchedHandle(Placement.of())
    for number in (1, 2):
        with pytest.raises(LaunchError, match="no port is free"):
            handle.ensure_initialized()
        assert len(launches) == number
    snapshot = handle.snapshot()
    assert snapshot.health == "down"
    assert "no port is free" in str(snapshot.last_error)
    assert handle.needs_renewal
    handle.close()
    with pytest.raises(ServiceError, match="was left"):
        handle.acquire()
