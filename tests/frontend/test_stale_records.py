"""A record of an earlier launch that leads nowhere is not believed."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import psutil
import pytest
from laptop import Laptop
from services import HOST, Service

from seamless_remote import Settings
from seamless_remote.launching.client_record import ClientRecord
from seamless_remote.launching.frontend_launch import launch_on_frontend
from seamless_remote.launching.placement import Placement
from seamless_remote.nursery.process import this_process


@pytest.fixture
def record(select: Callable[[str], None]) -> ClientRecord:
    """The record of a hashserver that has never been launched."""
    select("tunneled")
    return ClientRecord.of(Placement.of().launch("hashserver", mode="rw").configure())


@pytest.fixture
def impatient(fresh_remote: None) -> Iterator[None]:
    this_process().settings = Settings(healthcheck_timeout=0.5)
    yield
    this_process().settings = None


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((HOST, 0)) as door:
        yield door


def write(record: ClientRecord, **content: object) -> None:
    record.path.parent.mkdir(parents=True, exist_ok=True)
    record.path.write_text(json.dumps({"hostname": HOST, **content}))


def port_of(door: socket.socket) -> int:
    return int(door.getsockname()[1])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b"\xff\xfe",
        b"null",
        b'{"hostname": "localhost"}',
        b'{"hostname": 1, "port": 1}',
        b'{"hostname": "localhost", "port": true}',
        b'{"hostname": "localhost", "port": "80"}',
        b'{"hostname": "localhost", "port": 1, "status": "stale"}',
    ],
    ids=lambda content: repr(content[:40]),
)
def test_a_record_that_makes_no_sense_is_none(record: ClientRecord, content: bytes) -> None:
    record.path.parent.mkdir(parents=True, exist_ok=True)
    record.path.write_bytes(content)
    assert record.content() is None
    assert record.answering() is None
    record.forget()
    record.forget()
    assert not record.path.exists()


def test_a_record_whose_service_answers_is_believed(
    record: ClientRecord, shared_hashserver: Service
) -> None:
    write(record, port=shared_hashserver.port)
    found = record.answering()
    assert found is not None
    assert found["port"] == shared_hashserver.port


def test_a_tunnel_that_closes_is_stale(record: ClientRecord, listener: socket.socket) -> None:
    def close_one() -> None:
        listener.accept()[0].close()

    closer = threading.Thread(target=close_one)
    closer.start()
    write(record, port=port_of(listener))
    assert record.answering() is None
    closer.join()


def test_a_tunnel_that_is_silent_is_stale(
    record: ClientRecord, listener: socket.socket, impatient: None
) -> None:
    write(record, port=port_of(listener))
    assert record.answering() is None


def test_a_scheduler_that_does_not_greet_is_stale(
    select: Callable[[str], None],
    shared_hashserver: Service,
    listener: socket.socket,
    impatient: None,
    nowhere: str,
) -> None:
    select("tunneled")
    launch_dict = Placement.of().launch("daskserver", substage=True).configure()
    record = ClientRecord.of(launch_dict)
    # What answers the dashboard's check does not matter here, and the hashserver answers no other.
    record = ClientRecord(record.path, "/healthcheck", record.port_name)
    assert record.port_name == "dashboard_port"
    for port in (port_of(listener), int(nowhere.rpartition(":")[2])):
        write(record, port=port, dashboard_port=shared_hashserver.port)
        assert record.content() is not None
        assert record.answering() is None


def test_a_stopped_tunnel_is_replaced_and_ended(
    laptop: Laptop, record: ClientRecord, impatient: None
) -> None:
    launch_dict = Placement.of().launch("hashserver", mode="rw").configure()
    first = launch_on_frontend("a hashserver", launch_dict)
    assert launch_on_frontend("a hashserver", launch_dict) == first
    former = {process.pid for process in laptop.frontend.tunnels()}
    for pid in laptop.tunnels_to("hashserver"):
        psutil.Process(pid).send_signal(signal.SIGSTOP)
    second = launch_on_frontend("a hashserver", launch_dict)
    assert second["port"] != first["port"]
    assert second["tunneled-port"] == first["tunneled-port"]
    assert not former & {process.pid for process in laptop.frontend.tunnels()}
    with closing(socket.create_connection((second["hostname"], second["port"]))):
        pass
