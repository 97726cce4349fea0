"""For the tests of the nursery: no service, no HTTP, but real loops and real threads."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from loops import run
from signals import LONG

from seamless_remote import Settings
from seamless_remote.nursery import process

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def fresh_process() -> Iterator[None]:
    """No nursery and no service, before and after."""

    def forget() -> None:
        process.close()
        process.this_process().services.clear()
        process.this_process().settings = None

    forget()
    yield
    forget()


@pytest.fixture
def short_grace() -> Settings:
    """Settings with a grace period that a test can wait for; hosted nurseries have them too."""
    chosen = Settings(grace_period=0.2)
    process.this_process().settings = chosen
    return chosen


@pytest.fixture
def threaded() -> Iterator[Callable[..., Future[Any]]]:
    """Runs a function on a thread of its own, at once; the test waits for it at its end."""
    threads: list[threading.Thread] = []

    def start(function: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def work() -> None:
            try:
                future.set_result(function(*args))
            except BaseException as exc:
                future.set_exception(exc)

        # A daemon: one that hangs fails its test, and does not keep the interpreter from ending.
        thread = threading.Thread(target=work, name="test", daemon=True)
        threads.append(thread)
        thread.start()
        return future

    yield start
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()


@pytest.fixture
def elsewhere(threaded: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
    """Runs an async function in a loop of its own on a thread of its own."""

    def start(
        function: Callable[..., Awaitable[Any]], *args: Any, kind: str = "asyncio"
    ) -> Future[Any]:
        return threaded(run, kind, function, *args)

    return start


@pytest.fixture
def interpreter() -> Callable[..., str]:
    """Runs a script with every warning an error; its stdout. Nothing may come on stderr."""

    def run(script: str, *options: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", *options, "-c", script],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=ROOT,
            check=False,
        )
        assert ended.stderr == ""
        assert ended.returncode == 0
        return ended.stdout

    return run
