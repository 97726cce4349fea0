"""The services that the cases speak to, each a process of its own on a port of its own."""

from __future__ import annotations

import contextlib
import http.client
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from . import environments

_HOST = "127.0.0.1"
_PORTS = range(20000, 32000)  # below the range from which the kernel takes ports for connections
_START_TIMEOUT = 30.0
_IDLE_TIMEOUT = 3600  # a service that a killed benchmark leaves behind ends itself after this


@contextlib.contextmanager
def stub(folder: Path, **options: float) -> Iterator[str]:
    """A stub server with these options (see `stub.py`); gives its URL."""
    port_file = folder / f"stub-{random.getrandbits(64):x}.port"
    program = [sys.executable, str(Path(__file__).with_name("stub.py")), str(port_file)]
    program += [f"--{name}={value}" for name, value in options.items()]
    with subprocess.Popen(program, stdin=subprocess.PIPE) as process:
        deadline = time.monotonic() + _START_TIMEOUT
        while not (port_file.exists() and port_file.read_text().endswith("\n")):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the stub server did not start")
            time.sleep(0.02)
        yield f"http://{_HOST}:{int(port_file.read_text())}"
        # The end of the stub's standard input ends it, and leaving the block closes that.


@contextlib.contextmanager
def real(log: Path, *command: str | Path) -> Iterator[str]:
    """A writable hashserver or seamless-database; gives its URL."""
    name, *arguments = command
    script = environments.python("ours").with_name(str(name))
    for port in random.sample(_PORTS, 20):
        options = ["--host", _HOST, "--port", str(port), "--timeout", str(_IDLE_TIMEOUT)]
        with log.open("ab") as output:
            process = subprocess.Popen(
                [script, *arguments, "--writable", *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            if _started(process, port):
                yield f"http://{_HOST}:{port}"
                return
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    raise RuntimeError(f"{name} did not start:\n{log.read_text(errors='replace')}")


def _started(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether it answers; False where it ended, as on a port that is taken."""
    deadline = time.monotonic() + _START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        connection = http.client.HTTPConnection(_HOST, port, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/healthcheck")
            if connection.getresponse().status == 200:
                return True
        connection.close()
        time.sleep(0.05)
    return False
