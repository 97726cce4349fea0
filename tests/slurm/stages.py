"""A HOME with a stage on the bench, as the README defines one, and programs that use it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import readme
import yaml
from bench import PATIENCE, Bench
from services import HOST, Home, end_group, wait_until

from seamless_remote.demo.local_cluster import write_yaml

PROGRAM_TIMEOUT = 2 * PATIENCE
"""Seconds after which a program that has not ended counts as one that hangs."""

# Dask and what it uses deprecate parts of each other, and leave sockets to the collector.
THEIRS: dict[str, Any] = {"warnings": ("default",), "allow": ("ResourceWarning",)}

PROLOGUE = """
import json, logging, os, sys, threading, time
from pathlib import Path
import seamless, seamless.config, seamless_remote
from seamless.transformer import delayed, direct

folder = Path(sys.argv[1])


class Lines(logging.Handler):
    def emit(self, record):
        with open(folder / "log", "a") as log:
            log.write(json.dumps([record.name, record.levelname, record.getMessage()]) + "\\n")


logging.getLogger("seamless_remote").addHandler(Lines())
logging.getLogger("seamless_remote").setLevel("INFO")


@delayed
def job(number):
    import os

    return f"{number} in {os.environ['SLURM_JOB_ID']}"


@delayed
def held(started, released):
    import os, time

    with open(started, "a") as file:
        file.write(os.environ["SLURM_JOB_ID"] + "\\n")
    while not os.path.exists(released):
        time.sleep(0.05)
    return os.environ["SLURM_JOB_ID"]


def outcome(call):
    try:
        return call()
    except Exception as exc:
        return f"{type(exc).__name__}: {exc}"


def until(condition):
    while not condition():
        time.sleep(0.05)


def report(**found):
    print(json.dumps(found), flush=True)
"""


class SlurmHome(Home):
    """A HOME whose cluster is the bench, and a project that computes there.

    `changes` change the README's queue.
    """

    cluster = "mycluster"
    project_name = "myproject"

    def __init__(self, path: Path, bench: Bench, **changes: object) -> None:
        super().__init__(path)
        self.bench = bench
        self.env["SLURM_CONF"] = str(bench.conf)
        for name, text in readme.files().items():
            if name.endswith(".yaml"):
                self.write(name, text)
        clusters = path / ".seamless" / "clusters.yaml"
        definition = yaml.safe_load(clusters.read_text())
        # Dask would leave its scratch space in the README's /tmp.
        changes = {"tmpdir": str(path / "tmp"), **changes}
        definition[self.cluster]["queues"]["normal"].update(changes)
        write_yaml(clusters, definition)

    def write(self, name: str, text: str) -> Path:
        """Write a file of the README's, with the names that a reader replaces replaced."""
        target = self.path / name[2:] if name.startswith("~/") else self.project / name
        text = text.replace("/data/me", str(self.path)).replace("10.0.0.1", HOST)
        target.write_text(text)
        return target

    def scheduler(self) -> int:
        """The process id of the Dask scheduler."""
        return self.service_pid("daskserver")

    def close(self) -> None:
        """End the scheduler and the SLURM jobs, then everything else under this HOME."""
        for key, state in self.services().items():
            if key.startswith("daskserver") and "pid" in state:
                end_group(int(state["pid"]))
        self.bench.cancel_all()
        wait_until(lambda: not self._workers(), timeout=PATIENCE, what="the end of the workers")
        super().close()

    def _workers(self) -> list[str]:
        services = [int(state["pid"]) for state in self.services().values() if "pid" in state]
        return [each for each in self._strangers(services) if "dask" in each or "slurm" in each]


class Program:
    """A program under way in a stage."""

    def __init__(self, home: SlurmHome, code: str, folder: Path, **options: Any) -> None:
        self.folder = folder
        self._future: Future[dict[str, Any]] = Future()
        self._thread = threading.Thread(target=self._run, args=(home, code, options))
        self._thread.start()

    @property
    def started(self) -> list[str]:
        """The SLURM jobs in which `held` was started, in order."""
        return _lines(self.folder / "started")

    @property
    def log(self) -> list[list[str]]:
        """What `seamless_remote` has logged: a logger's name, level and message each."""
        return [json.loads(line) for line in _lines(self.folder / "log")]

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Wait until `condition` holds. AssertionError if the program ends before."""

        def holds() -> bool:
            if condition():
                return True
            assert not self._future.done(), f"ended before {what}: {self._future.result()}"
            return False

        wait_until(holds, timeout=PATIENCE, what=f"{what}; logged: {self.log}")

    def release(self) -> None:
        """Let `held` end, wherever it runs."""
        (self.folder / "released").touch()

    def result(self) -> dict[str, Any]:
        """What the program reports at its end. AssertionError if it fails."""
        return self._future.result(PROGRAM_TIMEOUT)

    def join(self) -> None:
        self._thread.join()

    def _run(self, home: SlurmHome, code: str, options: dict[str, Any]) -> None:
        options = {"timeout": PROGRAM_TIMEOUT, **THEIRS, **options}
        try:
            program = home.run(PROLOGUE + code, arguments=[str(self.folder)], **options)
            reported = json.loads(program.stdout.splitlines()[-1])
            self._future.set_result(reported | {"stderr": program.stderr})
        except BaseException as exc:
            self._future.set_exception(exc)


@contextmanager
def program(home: SlurmHome, code: str, folder: Path, **options: Any) -> Iterator[Program]:
    """A program that runs while the body does things to the cluster."""
    running = Program(home, code, folder, **options)
    try:
        yield running
    finally:
        running.release()
        running.join()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except FileNotFoundError:
        return []
