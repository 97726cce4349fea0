"""What becomes of a Dask stage when its scheduler dies, falls silent, is forked or is left."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from services import Home

PROLOGUE = """
import json, os, signal, sys, threading, time
from pathlib import Path
import remote_http_launcher
import seamless, seamless.config, seamless_remote
from seamless.transformer import delayed, direct
from seamless_remote import daskserver_remote
from seamless_remote.clients import scheduler_watch

launches = []
deaths = []
launch = remote_http_launcher.run

def counted(config, **options):
    result = launch(config, **options)
    if config["key"].startswith("daskserver"):
        launches.append(config["key"])
        if deaths:
            kill(deaths.pop())
    return result

remote_http_launcher.run = counted


@direct
def increment(number):
    return number + 1


@delayed
def tenfold(number):
    return 10 * number


@delayed
def add(left, right):
    return left + right


@delayed
def held(started, released):
    import os, time

    open(started, "w").close()
    while not os.path.exists(released):
        time.sleep(0.01)
    return 77


def until(condition):
    while not condition():
        time.sleep(0.01)


def scheduler():
    (path,) = Path.home().glob(".remote-http-launcher/server/daskserver*.json")
    return json.loads(path.read_text())["pid"]


def kill(signal=signal.SIGKILL):
    os.kill(scheduler(), signal)


def daskserver():
    services = seamless_remote.current_nursery().snapshot().services
    found = [each.clients[0] for each in services if each.name == "daskserver_remote"]
    return found[0] if found else None


def is_health(word):
    found = daskserver()  # the nursery starts a service when it has its turn
    return found is not None and found.health == word


def outcome(call):
    try:
        return call()
    except Exception as exc:
        return str(exc)


class Background(threading.Thread):
    def __init__(self, call):
        super().__init__(target=lambda: setattr(self, "outcome", outcome(call)))
        self.start()


def all_ended(*names):
    return not [t.name for t in threading.enumerate() if t.name.startswith(names)]


def report(**found):
    print(json.dumps(found), flush=True)


folder = Path(sys.argv[1])
"""

DEATHS = """
import logging

lines = []
logging.getLogger("seamless_remote").addHandler(type("Lines", (logging.Handler,), {
    "emit": lambda self, record: lines.append((record.levelname, record.getMessage()))
})())
logging.getLogger("seamless_remote").setLevel("INFO")

if __name__ == "__main__":
    seamless.config.init()
    five = tenfold(5)
    found = {"before": five.run()}
    until(daskserver)
    dashboard = daskserver().dashboard
    logged = [each for each in lines if dashboard in each[1]]

    kill(signal.SIGTERM)  # it ends in good order, which Dask's client takes for no loss
    until(lambda: is_health("up") and daskserver().restarts == 1)
    found["after an idle one"] = increment(1)
    found["with an input of the first"] = add(five, 3).run()

    started, released = str(folder / "started"), str(folder / "released")
    met = Background(held(started, released).run)
    until(lambda: os.path.exists(started))
    launches.clear()
    kill()
    met.join()
    seamless.config.set_stage()
    calls = [Background(lambda number=number: increment(number)) for number in range(100, 106)]
    for each in calls:
        each.join()
    open(released, "w").close()
    report(
        **found,
        met=met.outcome,
        calls=[each.outcome for each in calls],
        launches=len(launches),
        restarts=daskserver().restarts,
        logged=logged,
        dashboard=dashboard,
    )
    seamless.close()
"""

IN_A_TRIO_HOST = """
import anyio

async def main():
    async with seamless_remote.open_nursery() as nursery:
        seamless.config.init()
        kill()
        while not (is_health("up") and daskserver().restarts == 1):
            await anyio.sleep(0.01)
        snapshot = json.loads(json.dumps(nursery.snapshot().as_dict()))
        tasks = {task["name"]: task["state"] for task in snapshot["tasks"]}
        report(backend=snapshot["backend"], watch=tasks["watch of daskserver_remote"])
        seamless.close()

if __name__ == "__main__":
    anyio.run(main, backend="trio")
"""

LEFT = """
if __name__ == "__main__":
    from seamless_dask.transformer_client import get_seamless_dask_client

    seamless.config.init()
    kill()
    until(lambda: is_health("down"))
    client = get_seamless_dask_client()
    waits = Background(lambda: client.get_fat_checksum_future(64 * "0"))
    daskserver_remote.deactivate()
    deaths.append(signal.SIGKILL)  # the scheduler that is launched now dies at once
    gone = get_seamless_dask_client() is None
    waits.join()
    daskserver_remote.activate()
    again = increment(1)
    kill()
    until(lambda: is_health("down"))
    seamless.close()
    until(lambda: all_ended("seamless-remote", "IO loop"))
    report(waits=waits.outcome, gone=gone, again=again, left=get_seamless_dask_client() is not None)
"""

SILENT = """
scheduler_watch.BUSY_INTERVAL = 0.1

if __name__ == "__main__":
    seamless.config.init()
    started, released = str(folder / "started"), str(folder / "released")
    job = Background(held(started, released).run)
    until(lambda: os.path.exists(started))
    first = scheduler()
    try:
        os.kill(first, signal.SIGSTOP)
        until(lambda: is_health("down"))
        os.kill(first, signal.SIGCONT)
        until(lambda: is_health("up"))
        open(released, "w").close()
        job.join()
        restarts, kept = daskserver().restarts, scheduler() == first
        os.kill(first, signal.SIGSTOP)
        daskserver_remote.deactivate()
    finally:
        os.kill(first, signal.SIGCONT)
    seamless.close()
    report(job=job.outcome, restarts=restarts, kept=kept, ended=all_ended("IO loop"))
"""

FORK = """
def in_a_child(call):
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        os.close(readable)
        with os.fdopen(writable, "w") as pipe:
            json.dump(call(), pipe)
        sys.exit(0)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        found = json.load(pipe)
    return found, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

if __name__ == "__main__":
    seamless.config.init()
    five = tenfold(5)
    five.run()
    calls = in_a_child(lambda: [increment(1), increment(2), add(five, 3).run()])
    started, released = str(folder / "started"), str(folder / "released")
    job = held(started, released)
    waits = Background(job.run)
    until(lambda: os.path.exists(started))
    inherited = in_a_child(lambda: outcome(job.run))
    nothing = in_a_child(lambda: None)
    open(released, "w").close()
    waits.join()
    report(
        calls=calls, inherited=inherited, nothing=nothing, job=waits.outcome, parent=increment(10)
    )
    seamless.close()
"""

NO_CLOSE = """
if __name__ == "__main__":
    seamless.config.init()
    report(found=increment(int(sys.argv[2])))
"""

WITHOUT_WORKERS = """
import logging, subprocess

lines = []
handler = type("Lines", (logging.Handler,), {
    "emit": lambda self, record: lines.append([record.levelname, record.getMessage()])
})()
logging.getLogger("seamless_remote.clients.worker_wait").addHandler(handler)
logging.getLogger("seamless_remote.clients.worker_wait").setLevel("INFO")
scheduler_watch.BUSY_INTERVAL = 0.1


def close_workers(dask_scheduler):
    for worker in list(dask_scheduler.workers):
        dask_scheduler.close_worker(worker)


if __name__ == "__main__":
    from seamless_dask.transformer_client import get_seamless_dask_client

    seamless.config.init()
    client = get_seamless_dask_client().client
    client.run_on_scheduler(close_workers)
    until(lambda: not client.scheduler_info(n_workers=-1)["workers"])
    idle = list(lines)
    call = Background(lambda: increment(1))
    until(lambda: daskserver() and daskserver().waits_for)
    command = [os.path.join(os.path.dirname(sys.executable), "dask"), "worker"]
    options = ["--nthreads", "2", "--no-dashboard", "--name", "late"]
    worker = subprocess.Popen(
        [*command, daskserver().address, *options],
        env={**os.environ, "DASK_DISTRIBUTED__WORKER__DAEMON": "False"},
        stderr=subprocess.DEVNULL,
    )
    call.join()
    until(lambda: not daskserver().waits_for)
    report(idle=idle, lines=lines, call=call.outcome)
    seamless.close()
    worker.terminate()
    worker.wait()
"""

# Dask and what it uses deprecate parts of each other, and leave sockets to the collector.
THEIRS: dict[str, Any] = {"warnings": ("default",), "allow": ("ResourceWarning",)}


@pytest.fixture(scope="module")
def dask(own_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A HOME with a Dask stage, whose services go on from one test to the next."""
    home = Home(tmp_path_factory.mktemp("dask") / "home")
    home.configure(level=3, remote="daskserver")
    try:
        yield home
    finally:
        home.close()


def run(home: Home, code: str, folder: Path, *arguments: object, **options: Any) -> dict[str, Any]:
    """What a program of this module reports."""
    given = [str(folder), *map(str, arguments)]
    # A launch takes many seconds on a busy machine, and a program here may wait for three.
    program = home.run(PROLOGUE + code, arguments=given, timeout=280, **THEIRS, **options)
    reported: dict[str, Any] = json.loads(program.stdout.splitlines()[-1])
    return reported | {"stderr": program.stderr}


def test_a_scheduler_that_dies_is_launched_again_once_and_the_next_calls_work(
    dask: Home, folder: Path
) -> None:
    found = run(dask, DEATHS, folder)
    assert (found["before"], found["after an idle one"]) == (50, 2)
    assert found["with an input of the first"] == 53
    assert found["calls"] == [number + 1 for number in range(100, 106)]
    assert found["launches"] == 1
    assert found["restarts"] == 2
    assert "has died" in found["met"]
    assert "Its job is lost" in found["met"]
    assert str(dask.state / "server" / "daskserver") in found["met"]
    assert found["dashboard"].startswith("http://")
    assert [level for level, _ in found["logged"]] == ["INFO"]
    assert "distributed.client ERROR" not in found["stderr"]


def test_a_trio_hosts_nursery_has_a_dead_scheduler_launched_again(dask: Home, folder: Path) -> None:
    found = run(dask, IN_A_TRIO_HOST, folder)
    assert (found["backend"], found["watch"]) == ("trio", "running")


def test_a_stage_can_be_left_and_closed_while_its_scheduler_is_launched_again(
    dask: Home, folder: Path
) -> None:
    found = run(dask, LEFT, folder)
    assert "was left" in str(found["waits"])
    assert (found["gone"], found["again"], found["left"]) == (True, 2, False)


def test_a_silent_scheduler_is_noticed_and_not_replaced(dask: Home, folder: Path) -> None:
    quick = {"SEAMLESS_REMOTE_HEALTHCHECK_TIMEOUT": "0.5"}
    found = run(dask, SILENT, folder, env=quick)
    assert found["job"] == 77
    assert (found["restarts"], found["kept"], found["ended"]) == (0, True, True)


def test_a_forked_child_makes_its_own_client_and_ends(dask: Home, folder: Path) -> None:
    found = run(dask, FORK, folder)
    assert found["calls"] == [[2, 3, 53], 0]
    inherited, status = found["inherited"]
    assert "by the parent" in inherited
    assert (status, found["nothing"]) == (0, [None, 0])
    assert (found["job"], found["parent"]) == (77, 11)


def test_a_program_that_closes_nothing_ends_quietly(dask: Home, folder: Path) -> None:
    for number in range(5):
        found = run(dask, NO_CLOSE, folder, number)
        assert found["found"] == number + 1
        assert "Traceback" not in found["stderr"]
        assert "ERROR" not in found["stderr"]


def test_a_stage_says_once_that_it_waits_for_workers_and_when_they_have_come(
    home: Home, folder: Path
) -> None:
    home.configure(level=3, remote="daskserver")
    found = run(home, WITHOUT_WORKERS, folder)
    assert found["idle"] == []
    assert found["call"] == 2
    # The reason may change while a worker comes; nothing is said twice in a row.
    lines = found["lines"]
    assert all(one != next_one for one, next_one in itertools.pairwise(lines))
    (level, waits), (end_level, end) = lines[0], lines[-1]
    assert (level, end_level) == ("WARNING", "INFO")
    assert "wait for workers" in waits
    assert str(home.state / "server" / "daskserver") in waits
    assert "workers have come" in end
