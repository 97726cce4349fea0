"""What is promised of a launched Dask scheduler, on a real one."""

from __future__ import annotations

import json
import socket

import pytest
from services import HOST, Home

NESTED = """
import json
import seamless, seamless.config
from seamless.transformer import delayed, direct


@direct
def outer(number):
    from seamless.transformer import direct

    @direct
    def inner(number):
        return number * 2

    return inner(number) + inner(number + 1)


@delayed
def double(number):
    return 2 * number


@delayed
def add(left, right):
    return left + right


if __name__ == "__main__":
    seamless.config.init()
    found = {"nested": outer(10), "dependent": add(double(3), double(4)).run()}
    seamless.close()
    print(json.dumps(found))
"""

LIFE = """
import json, sys, threading
import seamless, seamless.config
from seamless_remote import daskserver_remote

before = {"dask": "dask" in sys.modules, "seamless_dask": "seamless_dask" in sys.modules}
daskserver_remote.deactivate()
daskserver_remote.ensure_initialized()
seamless.config.init()
from seamless_dask.transformer_client import get_seamless_dask_client

active = get_seamless_dask_client() is not None
daskserver_remote.ensure_initialized()
daskserver_remote.deactivate()
daskserver_remote.deactivate()
gone = get_seamless_dask_client() is None
daskserver_remote.activate()
again = get_seamless_dask_client() is not None
seamless.close()
left = [t.name for t in threading.enumerate() if "dask" in t.name.lower() and t.is_alive()]
print(json.dumps({**before, "active": active, "gone": gone, "again": again, "left": left}))
"""

SILENT = """
import json, os
import seamless, seamless.config
import remote_http_launcher
from seamless_remote import ServiceError, daskserver_remote
from seamless_remote.clients import scheduler_probe

scheduler_probe.CONNECT_TIMEOUT = 1.0
run = remote_http_launcher.run

def misdirected(config, **options):
    if config["key"].startswith("daskserver"):
        return {"hostname": "127.0.0.1", "port": int(os.environ["SILENT_PORT"])}
    return run(config, **options)

remote_http_launcher.run = misdirected
try:
    seamless.config.init()
except ServiceError as exc:
    print(json.dumps(str(exc)))
seamless.close()
"""

ELSEWHERE = """
import json
import seamless.config
from seamless_remote import LaunchError
try:
    seamless.config.init()
except LaunchError as exc:
    print(json.dumps(str(exc)))
"""

# Dask and what it uses deprecate parts of each other, and leave sockets to the collector.
THEIRS = {"warnings": ("default",), "allow": ("ResourceWarning",)}


@pytest.fixture
def dask(home: Home) -> Home:
    home.configure(level=3, remote="daskserver")
    return home


def test_nested_and_dependent_transformations_run_on_dask(dask: Home) -> None:
    program = dask.run(NESTED, **THEIRS)
    found = json.loads(program.stdout.splitlines()[-1])
    assert found == {"nested": 20 + 22, "dependent": 6 + 8}


def test_the_handle_opens_once_and_closes_whatever_it_opened(dask: Home) -> None:
    program = dask.run(LIFE, **THEIRS)
    report = json.loads(program.stdout.splitlines()[-1])
    assert report == {
        "dask": False,
        "seamless_dask": False,
        "active": True,
        "gone": True,
        "again": True,
        "left": [],
    }


def test_a_scheduler_that_does_not_answer_is_an_error_that_names_the_log(dask: Home) -> None:
    with socket.create_server((HOST, 0)) as silent:
        port = silent.getsockname()[1]
        program = dask.run(SILENT, env={"SILENT_PORT": str(port)}, **THEIRS)
    message = json.loads(program.stdout.splitlines()[-1])
    assert f"tcp://{HOST}:{port}" in message
    assert str(dask.state / "server" / "daskserver") in message


def test_a_cluster_elsewhere_needs_a_conda_environment_and_the_error_says_so(dask: Home) -> None:
    clusters = dask.path / ".seamless" / "clusters.yaml"
    text = clusters.read_text().replace("local_cluster: local\n", "")
    clusters.write_text(
        text.replace("- hashserver", "- hostname: elsewhere.invalid\n    hashserver")
    )
    program = dask.run(ELSEWHERE, check=False, **THEIRS)
    assert program.stdout, program.stderr
    assert "conda" in json.loads(program.stdout.splitlines()[-1])
