"""What a program learns of a jobserver on its own machine that the server does not tell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from services import Home

PROGRAM = """
import json, logging, os, sys, threading
import seamless, seamless.config
from seamless.transformer import delayed
from seamless_remote.clients import job_watch, lost_workers
from seamless_remote.nursery.process import this_process

job_watch.LOST_AFTER = 1.0
job_watch.LONGEST_WATCH_INTERVAL = 0.2
lost_workers.LOOK_INTERVAL = 0.1
signs = os.environ["SIGNS"]


@delayed
def good(folder, number):
    import os, uuid
    open(os.path.join(folder, f"ran-good-{uuid.uuid4().hex}"), "w").close()
    return number


@delayed
def waits(folder, number):
    import os, time, uuid
    open(os.path.join(folder, f"ran-waits-{uuid.uuid4().hex}"), "w").close()
    while not os.path.exists(os.path.join(folder, "go")):
        time.sleep(0.02)
    return number


@delayed
def deadly(folder, number):
    import os, uuid
    open(os.path.join(folder, f"ran-deadly-{uuid.uuid4().hex}"), "w").close()
    os._exit(1)


class Until(logging.Handler):
    # An event that a text in the log sets.
    def __init__(self, text):
        super().__init__()
        self.text, self.seen = text, threading.Event()
        logging.getLogger("seamless_remote").addHandler(self)

    def emit(self, record):
        if self.text in record.getMessage():
            self.seen.set()


def run_in_thread(job):
    outcome = []

    def run():
        try:
            outcome.append(job.run())
        except Exception as exc:
            outcome.append(str(exc))

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def wait_for(pattern):
    import glob, time
    while not glob.glob(os.path.join(signs, pattern)):
        time.sleep(0.02)


def main():
    %s


if __name__ == "__main__":
    seamless.config.init()
    print(json.dumps(main()))
    seamless.close()
"""

KILLS_ITS_WORKER = """
    assert good(signs, 1).run() == 1
    try:
        deadly(signs, 1).run()
    except Exception as exc:
        found = str(exc)
    return found, good(signs, 2).run()
"""

KILLS_BESIDE_OTHERS = """
    assert good(signs, 1).run() == 1
    told = Until("has lost 1 of its 2 worker processes")
    other, others = run_in_thread(waits(signs, 5))
    wait_for("ran-waits-*")
    deadly_one, deaths = run_in_thread(deadly(signs, 1))
    told.seen.wait()
    open(os.path.join(signs, "go"), "w").close()
    other.join()
    deadly_one.join()
    return others, deaths
"""

LOSES_A_CONNECTION = """
    assert good(signs, 1).run() == 1
    gone = Until("lost the connection of job")
    thread, outcome = run_in_thread(waits(signs, 9))
    wait_for("ran-waits-*")
    (request,) = [c.waits_for for c in this_process().calls.under_way() if c.what[:4] == "job "]
    request.abort()
    gone.seen.wait()
    open(os.path.join(signs, "go"), "w").close()
    thread.join()
    return outcome
"""


@pytest.fixture
def signs(home: Home, tmp_path: Path) -> Path:
    home.configure(level=3, remote="jobserver")
    made = tmp_path / "signs"
    made.mkdir()
    return made


def run(home: Home, signs: Path, main: str) -> object:
    program = home.run(
        PROGRAM % main.strip(), env={"SIGNS": str(signs)}, warnings=("default",), timeout=60.0
    )
    return json.loads(program.stdout.splitlines()[-1])


def count(signs: Path, name: str) -> int:
    return len(list(signs.glob(f"ran-{name}-*")))


def test_a_job_that_ends_its_worker_is_an_error_that_names_it_and_the_log(
    home: Home, signs: Path
) -> None:
    error, afterwards = run(home, signs, KILLS_ITS_WORKER)  # type: ignore[misc]
    assert "a worker process died there" in error
    (log,) = home.state.glob("server/jobserver*.log")
    assert str(log) in error
    assert afterwards == 2
    assert count(signs, "deadly") == 1


def test_a_dead_worker_is_only_told_of_while_other_jobs_run_there(home: Home, signs: Path) -> None:
    others, deaths = run(home, signs, KILLS_BESIDE_OTHERS)  # type: ignore[misc]
    assert others == [5]
    assert "a worker process died there" in deaths[0]
    assert (count(signs, "waits"), count(signs, "deadly")) == (1, 1)


def test_a_result_whose_connection_was_lost_is_found_in_the_servers_own_log(
    home: Home, signs: Path
) -> None:
    assert run(home, signs, LOSES_A_CONNECTION) == [9]
    assert count(signs, "waits") == 1
