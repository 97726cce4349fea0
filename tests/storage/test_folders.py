"""Which folder a launched service works on: the one that was asked for, whatever runs already."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from services import Home, Service, wait_until

from seamless_remote.launching.external_launcher import run_launcher
from seamless_remote.launching.folders import (
    OtherFolderError,
    are_same,
    is_written_the_same,
    served_folders,
    wanted_folders,
    with_own_key,
)
from seamless_remote.launching.placement import Placement
from seamless_remote.launching.status_file import StatusFile

PROGRAM = """
import asyncio
import seamless, seamless_config
from seamless_remote import buffer_remote, database_remote

seamless_config.init()
buffer = seamless.Buffer(b"what each program computes")
checksum = buffer.get_checksum()

async def main():
    assert await database_remote.get_transformation_result(checksum) is None
    assert await buffer_remote.write_buffer(checksum, buffer)
    assert await database_remote.set_transformation_result(checksum, checksum)

asyncio.run(main())
seamless.close()
"""


def test_two_caches_at_once_have_their_own_buffers_and_results(home: Home, tmp_path: Path) -> None:
    for name in ("one", "two"):
        cache = tmp_path / name
        home.run(PROGRAM, env={"SEAMLESS_CACHE": str(cache)}, warnings=["ignore"])
        (stored,) = cache.glob("*/*/" + 64 * "[0-9a-f]")
        assert stored.read_bytes() == b"what each program computes"
        (database,) = cache.glob("*/seamless.db")
        assert database.stat().st_size
    assert len(home.services()) == 4


Launch = Callable[[Path | str], int]


@pytest.fixture
def launch(cluster: Home) -> Launch:
    """Launches a hashserver on a folder, or finds it running; returns its port."""
    configured = Placement.of().launch("hashserver", mode="rw").configure()

    def launch(folder: Path | str) -> int:
        return int(run_launcher("a hashserver", {**configured, "workdir": str(folder)})["port"])

    return launch


@pytest.fixture
def common_file(cluster: Home) -> StatusFile:
    """The status file under the key that seamless-config gives."""
    file = StatusFile.of(Placement.of().launch("hashserver", mode="rw").configure())
    assert file is not None
    return file


def end(home: Home, folder: Path) -> None:
    """Kill the one service of a folder."""
    (pid,) = [each["pid"] for each in home.services().values() if each["workdir"] == str(folder)]
    os.killpg(pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid), what="the service's end")


def test_a_folder_has_one_service_whoever_asks_and_however_it_is_written(
    cluster: Home, launch: Launch
) -> None:
    one, two = cluster.path / "one", cluster.path / "two"
    with ThreadPoolExecutor(4) as threads:
        ports = list(threads.map(launch, [one, two, one, two]))
    assert ports[:2] == ports[2:]
    assert ports[0] != ports[1]
    link = cluster.path / "link"
    link.symlink_to(two)
    for folder in (f"{two}/", link, "~/two", f"{one}/../two"):
        assert launch(folder) == ports[1]
    # Each keeps its own when the other is gone and comes back.
    for gone, other in ((one, two), (two, one)):
        kept = launch(other)
        end(cluster, gone)
        assert launch(other) == kept
        assert launch(gone) != kept
        assert launch(other) == kept
    served = sorted(each["workdir"] for each in cluster.services().values())
    assert served == [str(one), str(two)]


def test_what_answers_at_the_port_of_a_service_that_is_gone_is_not_taken_for_it(
    cluster: Home, launch: Launch, common_file: StatusFile, shared_hashserver: Service
) -> None:
    client = cluster.state / "client" / common_file.path.name
    folder = cluster.path / "one"
    port = shared_hashserver.port
    for path in (common_file.path, client):
        path.parent.mkdir(parents=True, exist_ok=True)
    # The number of its process is that of another one by now: this one.
    status = {"status": "running", "pid": os.getpid(), "port": port, "workdir": str(folder)}
    common_file.path.write_text(json.dumps(status))
    client.write_text(json.dumps({"hostname": "localhost", "port": port}))
    launched = launch(folder)
    assert launched != port
    # Nor is it when only the launcher's record is left.
    wait_until(client.exists, what="the record of the new service")
    client.write_text(json.dumps({"hostname": "localhost", "port": port}))
    assert launch(folder) == launched


def test_a_link_that_leads_elsewhere_by_now_is_an_error_that_names_both(
    cluster: Home, launch: Launch
) -> None:
    first, new, link = cluster.path / "first", cluster.path / "new", cluster.path / "link"
    first.mkdir()
    new.mkdir()
    launch(cluster.path / "other")
    link.symlink_to(first)
    launch(link)
    link.unlink()
    link.symlink_to(new)
    with pytest.raises(OtherFolderError) as caught:
        launch(first)
    assert str(first) in str(caught.value)
    assert str(link) in str(caught.value)


WANTED: dict[str, Any] = {
    "workdir": "/tmp",
    "file_parameters": {
        "buffer": [
            {"remote_url": "http://h:1", "remote_directory": "~/buffers/"},
            {"remote_url": "http://h:2", "readonly": True},
        ],
        "record": False,
    },
}


@pytest.mark.parametrize(
    ("status", "will_do"),
    [
        ({"workdir": "/tmp", "parameters": WANTED["file_parameters"]}, True),
        ({"workdir": "/tmp/", "parameters": {"buffer": [{"remote_directory": "~/buffers"}]}}, True),
        ({"workdir": "/tmp", "parameters": {"buffer": [{"remote_directory": "~/old"}]}}, False),
        ({"workdir": "/var/tmp", "parameters": WANTED["file_parameters"]}, False),
        # It does not say.
        ({"workdir": "/tmp"}, True),
        ({"status": "running"}, True),
        ({"workdir": 3}, True),
    ],
)
def test_a_jobserver_of_other_buffer_folders_will_not_do(
    status: dict[str, Any], will_do: bool
) -> None:
    served = served_folders(status)
    assert are_same(served, wanted_folders(WANTED), is_written_the_same) is will_do


def test_a_key_of_its_own_goes_with_logs_of_its_own() -> None:
    launch_dict = {**WANTED, "key": "a-{template}", "log_file": "~/x.log"}
    own = with_own_key(launch_dict, "hashserver-c-rw-p", ["/a"])
    other = with_own_key(launch_dict, "hashserver-c-rw-p", ["/b"])
    assert own["key"].startswith("hashserver-c-rw-p--folder-")
    assert own["key"] != other["key"]
    assert own["log_file"] != other["log_file"]
    assert own["workdir"] == "/tmp"
