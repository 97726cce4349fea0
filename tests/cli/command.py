"""Runs the tools as a user does: as separate programs, capturing their output."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from services import HOST, LEAK_SIGNS, Service, environment

TIMEOUT = 60.0


@dataclass(frozen=True)
class Ended:
    """A tool that has ended: its exit status and its output."""

    status: int
    stdout: bytes
    stderr: str

    def line(self) -> str:
        """The only line on standard error."""
        lines = self.stderr.splitlines()
        assert len(lines) == 1, self.stderr
        return lines[0]


class Command:
    """Runs the tools in `folder`, which is also their HOME, with extra environment variables."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.env = environment(folder, TMPDIR=str(folder)) | dict(env or {})

    def resolve(self, *arguments: object, **options: Any) -> Ended:
        return self.run("resolve", *arguments, **options)

    def fingertip(self, *arguments: object, **options: Any) -> Ended:
        return self.run("fingertip", *arguments, **options)

    def run(
        self,
        tool: str,
        *arguments: object,
        first: str = "",
        stdout: Any = subprocess.PIPE,
        env: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run a tool to its end. Its process runs `first`, Python code, before the tool."""
        process = self.start(tool, *arguments, first=first, stdout=stdout, env=env)
        return end(process)

    def start(
        self,
        tool: str,
        *arguments: object,
        first: str = "",
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a tool in the background."""
        return subprocess.Popen(
            [*command(tool, first), *map(str, arguments)],
            cwd=self.folder,
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )


def command(tool: str, first: str = "") -> list[str]:
    """The command line that runs `first`, Python code, and then a tool in the same process."""
    module = f"seamless_remote.cli.{tool}"
    if not first:
        return [sys.executable, "-m", module]
    run = f"import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", f"{first}\n{run}"]


def end(process: subprocess.Popen[bytes], *, traceback: bool = False) -> Ended:
    """Wait for a tool to end. Fails on signs of a leak and, unless expected, on a traceback."""
    try:
        stdout, stderr = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
        raise AssertionError(f"no end within {TIMEOUT:g} seconds\n{stderr.decode()}") from None
    text = (stderr or b"").decode()
    for sign in (*LEAK_SIGNS, "[seamless.close]"):
        assert sign not in text, text
    if not traceback and "--debug" not in process.args:  # type: ignore[operator]
        assert "Traceback" not in text, text
    return Ended(process.returncode, stdout or b"", text)


def checksum_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def store(folder: Path, content: bytes) -> str:
    """Store a buffer in a buffer folder; returns its checksum."""
    checksum = checksum_of(content)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / checksum).write_bytes(content)
    return checksum


def upload(service: Service, content: bytes) -> str:
    """Upload a buffer to a hashserver; returns its checksum."""
    checksum = checksum_of(content)
    connection = http.client.HTTPConnection(HOST, service.port)
    try:
        connection.request("PUT", f"/{checksum}", body=content)
        assert connection.getresponse().status in (200, 201)
    finally:
        connection.close()
    return checksum


def clients(
    *buffers: str | Path, database: str | None = None, readonly: bool = True
) -> dict[str, str]:
    """Environment variables that define clients for service URLs and buffer folders (paths)."""
    entries = [
        {"remote_directory": str(each)}
        if isinstance(each, Path)
        else {"remote_url": each, "readonly": readonly}
        for each in buffers
    ]
    databases = [] if database is None else [{"remote_url": database, "readonly": readonly}]
    return {"SEAMLESS_REMOTE_CLIENTS": json.dumps({"buffer": entries, "database": databases})}


class Faulty:
    """A server on a real socket that sends the same bytes, `answer`, to every request.

    Afterwards it closes the connection, or with `hold` keeps it open until the test ends.
    """

    def __init__(self, answer: bytes, *, hold: bool = False) -> None:
        self.sent = threading.Event()
        self._answer = answer
        self._hold = hold
        self._ended = threading.Event()
        self._listener = socket.create_server((HOST, 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            peer, _ = self._listener.accept()
            if self._ended.is_set():
                peer.close()
                return
            thread = threading.Thread(target=self._serve, args=(peer,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: socket.socket) -> None:
        with peer:
            try:
                if not peer.recv(65536):
                    return
                peer.sendall(self._answer)
            except OSError:
                return  # the client has gone, which some tests provoke
            self.sent.set()
            if self._hold:
                self._ended.wait(TIMEOUT)

    def __enter__(self) -> Faulty:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        socket.create_connection(self._listener.getsockname()).close()
        for thread in self._threads:
            thread.join(TIMEOUT)
        self._listener.close()


def answer(status: str, body: bytes, *, length: int | None = None) -> bytes:
    """An HTTP response. `length` sets a `Content-Length` other than the true one."""
    announced = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {announced}\r\n\r\n".encode() + body


def names(folder: Path, *, without: Sequence[str] = ()) -> set[str]:
    """The names in a folder."""
    return {each.name for each in folder.iterdir()} - set(without)
