"""What a launched service says of itself in its status file, and who may launch it meanwhile."""

from __future__ import annotations

import fcntl
import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import remote_http_launcher
from made_up_service import Answer, MadeUpService, always
from services import Home

from seamless_remote.launching import status_file
from seamless_remote.launching.external_launcher import run_launcher
from seamless_remote.launching.status_file import Running, StatusFile

LAUNCH_DICT = {
    "workdir": "/tmp",
    "key": 'hashserver-{"a/b".replace("/", "--")}',
    "command": "hashserver --status-file {status_file} {workdir}",
    "handshake": "healthcheck",
}

RUNNING = {"status": "running", "pid": 12, "port": 4567, "network_interface": "127.0.0.1"}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StatusFile:
    # Not a `Home`: that ends every process of which it finds a status file.
    monkeypatch.setenv("HOME", str(tmp_path))
    found = StatusFile.of(LAUNCH_DICT)
    assert found is not None
    found.path.parent.mkdir(parents=True)
    return found


def free(file: StatusFile) -> bool:
    """Whether another process could launch the service now."""
    with file.path.with_suffix(".lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_it_is_where_the_launcher_has_it(file: StatusFile, tmp_path: Path) -> None:
    assert file.path == tmp_path / ".remote-http-launcher" / "server" / "hashserver-a--b.json"
    assert file.healthcheck == "/healthcheck"


@pytest.mark.parametrize(
    "changes",
    [
        {"hostname": "elsewhere.example.com"},
        {"handshake": {"path": "health", "port_name": "dashboard_port"}},
        {"handshake": None},
        {"key": "no/key"},
        {"workdir": None},
    ],
)
def test_other_services_are_left_to_the_launcher(changes: dict[str, Any]) -> None:
    assert StatusFile.of({**LAUNCH_DICT, **changes}) is None


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (json.dumps(RUNNING), Running(12, "127.0.0.1", 4567)),
        (json.dumps({**RUNNING, "network_interface": "::1"}), Running(12, "::1", 4567)),
        ('{"status": "running", "pid": 12, "port": 4567}', Running(12, "localhost", 4567)),
        (json.dumps({**RUNNING, "status": "starting"}), None),
        (json.dumps({**RUNNING, "status": "failed"}), None),
        (json.dumps({**RUNNING, "port": "4567"}), None),
        (json.dumps({**RUNNING, "pid": None}), None),
        ('{"status": "running", "pid": 12, "po', None),
        ("[]", None),
        ("", None),
        (None, None),
    ],
)
def test_a_service_runs_where_it_says_that_it_runs(
    file: StatusFile, content: str | None, found: Running | None
) -> None:
    if content is not None:
        file.path.write_text(content)
    assert file.running() == found


@pytest.mark.parametrize(
    ("answer", "well"),
    [(always(200, b"OK"), True), (always(500, b"no"), False), (always(404, b"no"), False)],
)
def test_a_service_is_well_that_answers_its_healthcheck(
    file: StatusFile, answer: Answer, well: bool
) -> None:
    service = MadeUpService(answer)
    try:
        port = int(service.url.rpartition(":")[2])
        assert file.answers(Running(12, "127.0.0.1", port)) is well
        assert service.requests == [("GET", "/healthcheck", b"")]
    finally:
        service.close()
    assert not file.answers(Running(12, "127.0.0.1", port))


def test_one_process_at_a_time_launches_a_service(file: StatusFile) -> None:
    assert free(file)
    with file.lock():
        assert not free(file)
    assert free(file)


def test_a_process_that_never_finishes_its_launch_is_passed_over(
    file: StatusFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(status_file, "LOCK_PATIENCE", 0.0)
    with file.lock(), file.lock():
        assert "another process has held the launch lock" in caplog.text
    assert free(file)


def test_without_a_place_for_the_lock_a_launch_goes_on(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    went_on = False
    with StatusFile(tmp_path / "taken" / "server" / "key.json", "/", "localhost").lock():
        went_on = True
    assert went_on
    assert [each.name for each in tmp_path.iterdir()] == ["taken"]


def test_a_launch_at_the_end_of_the_interpreter_needs_no_other_thread(
    file: StatusFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def run(launch_dict: dict[str, Any]) -> dict[str, Any]:
        threads.append(threading.current_thread())
        return {"hostname": "localhost", "port": 4567}

    monkeypatch.setattr(remote_http_launcher, "run", run)
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    assert run_launcher("a service", LAUNCH_DICT) == {"hostname": "localhost", "port": 4567}
    assert threads == [threading.current_thread()]


FORKED = """
import fcntl, os
from pathlib import Path
from seamless_remote.launching.status_file import StatusFile

file = StatusFile(Path("state/server/key.json"), "/", "localhost")
ears, mouth = os.pipe()
with file.lock():
    child = os.fork()
    if not child:
        os.read(ears, 1)
        os._exit(0)
with open("state/server/key.lock") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
os.write(mouth, b"x")
os.waitpid(child, 0)
"""


def test_a_child_that_is_forked_during_a_launch_does_not_keep_others_from_launching(
    home: Home,
) -> None:
    home.run(FORKED)
