"""What the cases speak to and ask for: services on this machine, with buffers and results."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .catalogue import FAR, FAR_DELAY, HUGE, JOB_SECONDS, LARGE, PACE, SLOW_SECONDS, Case
from .measured.task import LOOKUPS, ask_database, lookup_key, result_of
from .runs import scripts

_HOST = "127.0.0.1"
_START_TIMEOUT = 30.0
_IDLE_TIMEOUT = 3600  # a service that a killed benchmark leaves behind ends itself after this
_STUB = (sys.executable, Path(__file__).with_name("stub.py"))
_JOB_STUB = (sys.executable, Path(__file__).with_name("job_stub.py"))


@contextlib.contextmanager
def surroundings(scratch: Path, cases: Sequence[Case]) -> Iterator[dict[str, dict[str, Any]]]:
    """Make the material of these cases and start the services, which end with the block.

    Gives what a peer's process is told, by the service of its case.
    """
    buffers = scratch / "buffers"
    material = {"scratch": str(scratch), **_store_buffers(buffers, cases)}
    with contextlib.ExitStack() as running:

        def start(*command: str | Path) -> str:
            return running.enter_context(_service(scratch / "services.log", *command))

        programs, options = scripts("ours"), ("--writable", "--timeout", str(_IDLE_TIMEOUT))
        database = start(programs / "seamless-database", scratch / "results.db", *options)
        hashserver = start(programs / "hashserver", buffers, "--layout", "prefix", *options)
        results = (
            {"checksum": key, "value": result_of(key)} for key in map(lookup_key, range(LOOKUPS))
        )
        ask_database(database, "PUT", results)
        told: dict[str, dict[str, Any]] = {
            "": {},
            "database": {"database": database},
            "stub": {"database": start(*_STUB)},
            "paced": {"servers": [start(*_STUB, "--pace", str(PACE))]},
            "folder": {"folder": str(buffers)},
            "http": {"servers": [hashserver], "stored": str(buffers)},
            # Not by the address of a service of this machine, which is never far away.
            "far": {
                "servers": [start(*_far_path_to(hashserver)).replace(_HOST, socket.gethostname())]
            },
            "jobs": {"jobserver": start(*_JOB_STUB, "--seconds", str(JOB_SECONDS))},
            "held-jobs": {"jobserver": start(*_JOB_STUB, "--seconds", str(_IDLE_TIMEOUT))},
            "slow": {"servers": [start(*_STUB, "--pause", str(each)) for each in SLOW_SECONDS]},
        }
        yield {service: {**material, **urls} for service, urls in told.items()}


def _far_path_to(url: str) -> Sequence[str | Path]:
    """The command of a path that leads to a service."""
    program = Path(__file__).with_name("far_path.py")
    return (sys.executable, program, "--to", urlsplit(url).netloc, "--delay", str(FAR_DELAY))


@contextlib.contextmanager
def _service(log: Path, *command: str | Path) -> Iterator[str]:
    """A service on a free port; gives its URL once it listens."""
    with socket.create_server((_HOST, 0)) as free:
        port = free.getsockname()[1]
    with (
        log.open("ab") as output,
        subprocess.Popen(
            [*command, "--host", _HOST, "--port", str(port)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
        ) as process,
    ):
        try:
            deadline = time.monotonic() + _START_TIMEOUT
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    said = log.read_text(errors="replace")
                    raise RuntimeError(f"{command[0]} did not start:\n{said}")
                time.sleep(0.05)
            yield f"http://{_HOST}:{port}"
        finally:
            process.kill()  # nothing that it has is kept


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((_HOST, port)) == 0


def _store_buffers(folder: Path, cases: Sequence[Case]) -> dict[str, Any]:
    """Fill a buffer folder, in the prefix layout of hashserver; the checksums by size.

    There are 1001 small buffers, and a huge one where a case asks for it.
    """
    folder.mkdir()
    (folder / ".HASHSERVER_PREFIX").touch()
    huge = any(case.settings.get("buffer") == "huge" for case in cases)
    return {
        "small": [_store(folder, os.urandom(1000)) for _ in range(1001)],
        "medium": _store(folder, os.urandom(1 << 20), times=16),
        "far": _store(folder, os.urandom(1 << 20), times=FAR),
        "large": _store(folder, os.urandom(1 << 20), times=LARGE),
        "huge": _store(folder, os.urandom(1 << 20), times=HUGE) if huge else "",
    }


def _store(folder: Path, piece: bytes, *, times: int = 1) -> str:
    """Store a buffer that repeats a piece, which nothing on the way would find out."""
    digest = hashlib.sha256()
    unnamed = folder / ".unnamed"
    # Never whole in memory: a process starts its life with its parent's peak.
    with unnamed.open("wb") as file:
        for _ in range(times):
            digest.update(piece)
            file.write(piece)
    checksum = digest.hexdigest()
    (folder / checksum[:2]).mkdir(exist_ok=True)
    unnamed.rename(folder / checksum[:2] / checksum)
    return checksum
