"""Whole programs: how they begin, what they do at every kind of host, and how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from services import Home, Service, run_script

HOSTS = ["asyncio", "trio", "nobody"]

# Counts what a program has of its own, and runs `main` where it is told to.
PREAMBLE = """
import asyncio, gc, json, os, sys, threading
import anyio
import seamless, seamless.config
import seamless_remote
from seamless import Buffer, Checksum
from seamless_remote import buffer_remote, database_remote

def possessions():
    gc.collect()
    files = []
    for name in os.listdir("/proc/self/fd"):
        try:
            files.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            pass
    files = sorted(each.split(":")[0] for each in files)
    threads = sorted(each.name for each in threading.enumerate())
    # trio keeps its worker threads for ten seconds
    return [[each for each in threads if not each.startswith("Trio thread")], files]

def run(main):
    async def hosted():
        async with seamless_remote.open_nursery():
            return await main()
    kind = sys.argv[1]
    return asyncio.run(main()) if kind == "nobody" else anyio.run(hosted, backend=kind)

def define(name="x"):
    buffer_remote.define_extern_client(
        name, "hashserver", url=os.environ["HASHSERVER"], readonly=False)
    database_remote.define_extern_client(
        name, "database", url=os.environ["DATABASE"], readonly=False)

def activate(name="x"):
    for module in (buffer_remote, database_remote):
        module.activate(no_main=True, extern_clients=[name])
"""


@pytest.fixture
def services(home: Home, shared_hashserver: Service, shared_database: Service) -> dict[str, str]:
    """The environment in which a program finds running services."""
    return {"HASHSERVER": shared_hashserver.url, "DATABASE": shared_database.url}


def test_one_script_gives_the_same_at_every_host_and_ends_as_it_began(
    home: Home, services: dict[str, str]
) -> None:
    results = {}
    for host in HOSTS:
        done = run_script(PREAMBLE + SAME_SCRIPT, home=home, env=services, arguments=[host, host])
        results[host] = json.loads(done.stdout)
    for result in results.values():
        assert result.pop("after") == result.pop("before")
    assert results["asyncio"] == results["trio"] == results["nobody"]
    assert results["nobody"]["lengths"] == [7, None, 0]


SAME_SCRIPT = """
from seamless.caching import buffer_writer

before = possessions()
contents = [f"{n}-seven"[-7:].encode() for n in range(3)]
checksums = [Buffer(content).get_checksum() for content in contents]
absent, empty = Checksum(bytes(32)), Buffer(b"").get_checksum()
found = {}

async def main():
    define()
    activate()
    found["inspected"] = len(buffer_remote.inspect_extern_clients())
    for content, checksum in zip(contents, checksums):
        await buffer_remote.promise(checksum)
        assert await buffer_remote.write_buffer(checksum, Buffer(content)) is True
    found["lengths"] = await buffer_remote.get_buffer_lengths([checksums[0], absent, empty])
    found["read"] = [(await buffer_remote.get_buffer(each)).content.decode() for each in checksums]
    found["resolved"] = [each.resolve().content.decode() for each in checksums]
    found["absent"] = await buffer_remote.get_buffer(absent)
    tf, result, other = checksums
    assert await database_remote.set_transformation_result(tf, result) is True
    found["result"] = (await database_remote.get_transformation_result(tf)).hex()
    found["unknown"] = await database_remote.get_transformation_result(absent)
    found["reverse"] = [e.hex() for e in await database_remote.get_rev_transformations(result)]
    snapshot = seamless_remote.current_nursery().snapshot().as_dict()
    json.dumps(snapshot)
    found["services"] = sorted(each["name"] for each in snapshot["services"])
    # A stage change, and back.
    define("y")
    activate("y")
    found["again"] = (await buffer_remote.get_buffer(other)).content.decode()
    activate()

run(main)
buffer_remote.activate(no_main=True)
database_remote.activate(no_main=True)
seamless_remote.client.close_all_clients()
print(json.dumps({**found, "before": before, "after": possessions()}))
seamless.close()
"""


@pytest.mark.parametrize("host", HOSTS)
def test_the_buffer_writer_and_its_flush(
    host: str, home: Home, services: dict[str, str], shared_hashserver: Service
) -> None:
    done = run_script(PREAMBLE + BUFFER_WRITER, home=home, env=services, arguments=[host])
    written = json.loads(done.stdout)
    assert len(written) == 62
    for name in written:
        assert (shared_hashserver.directory / name[:2] / name).is_file()


BUFFER_WRITER = """
from seamless.caching import buffer_writer

buffers = [Buffer(os.urandom(500)) for _ in range(60)]

async def main():
    define()
    activate()
    for buffer in buffers[:30]:
        buffer.incref()
    # Waits for the writer's own task of this buffer.
    if sys.argv[1] != "trio":
        assert await buffers[0].write() is True
    # Before each job, in the thread that dispatches it, and then everything goes on.
    await anyio.to_thread.run_sync(buffer_writer.flush)
    for client in buffer_remote._write_server_clients:
        assert client._shutdown
    more = Buffer(os.urandom(500))
    assert await buffer_remote.write_buffer(more.get_checksum(), more) is True
    assert await buffer_remote.get_buffer(buffers[0].get_checksum()) == buffers[0]
    return more

more = run(main)
for buffer in buffers[30:]:
    buffer.incref()
last = Buffer(os.urandom(3_000_000))
last.incref()
seamless.close()
print(json.dumps([each.get_checksum().hex() for each in [*buffers, more, last]]))
"""


@pytest.mark.parametrize("host", HOSTS)
def test_a_closed_seamless_refuses_and_a_reopened_one_works(
    host: str, home: Home, services: dict[str, str]
) -> None:
    done = run_script(PREAMBLE + CLOSED, home=home, env=services, arguments=[host])
    works = [True, True, "kept"]
    assert json.loads(done.stdout) == [works, 6 * ["closed"], works, 6 * ["closed"], works]


CLOSED = """
checksum = Buffer(b"kept").get_checksum()
found = []

async def use():
    found.append([
        await buffer_remote.write_buffer(checksum, Buffer(b"kept")),
        await database_remote.set_transformation_result(checksum, checksum),
        (await buffer_remote.get_buffer(checksum)).content.decode(),
    ])

async def refused():
    errors = []
    found.append(errors)
    for call in (
        buffer_remote.get_buffer(checksum),
        buffer_remote.write_buffer(checksum, Buffer(b"kept")),
        buffer_remote.promise(checksum),
        buffer_remote.get_buffer_lengths([checksum]),
        database_remote.get_transformation_result(checksum),
        database_remote.set_transformation_result(checksum, checksum),
    ):
        try:
            outcome = await call
        except RuntimeError as exc:
            errors.append("closed" if "closed" in str(exc) else str(exc))
        else:
            errors.append(f"gave {outcome!r}")

define()
activate()
for _ in range(2):
    run(use)
    seamless.close()
    run(refused)
    # As test suites reopen it.
    seamless._closed = seamless.shutdown._closed = False
    seamless.shutdown._closing = False
run(use)
seamless.close()
print(json.dumps(found))
"""


@pytest.mark.parametrize("host", HOSTS)
def test_a_notebook_calls_init_inside_its_running_loop(host: str, home: Home) -> None:
    home.configure(level=2)
    done = run_script(PREAMBLE + NOTEBOOK, home=home, arguments=[host])
    found = json.loads(done.stdout)
    assert found["directory"] == str(home.buffers)
    assert {key.split("-")[0] for key in home.services()} == {"hashserver", "database"}


NOTEBOOK = """
async def main():
    seamless.config.init()
    buffer = Buffer(b"from a cell")
    checksum = buffer.get_checksum()
    assert await buffer_remote.write_buffer(checksum, buffer)
    assert await database_remote.set_transformation_result(checksum, checksum)
    del buffer
    assert checksum.resolve().content == b"from a cell"
    # Synchronous, and in the loop in which the nursery lives.
    (launched,) = buffer_remote.inspect_launched_clients()
    database_remote.ensure_initialized()
    print(json.dumps(launched))

run(main)
seamless.close()
"""


def test_a_worker_process_may_use_clients_where_its_environment_says_so(
    home: Home, services: dict[str, str]
) -> None:
    for value, allowed in (("1", True), ("true", True), ("0", False)):
        done = run_script(
            PREAMBLE + WORKER,
            home=home,
            env={**services, "SEAMLESS_ALLOW_REMOTE_CLIENTS_IN_WORKER": value},
            arguments=["nobody"],
        )
        assert json.loads(done.stdout) is allowed


WORKER = """
seamless.set_is_worker(True)
checksum = Checksum(bytes(32))

async def main():
    define()
    activate()
    try:
        await database_remote.get_transformation_result(checksum)
    except RuntimeError:
        return False
    return True

print(json.dumps(run(main)))
"""


LAUNCHES_AND_READS = """
import sys
import seamless, seamless.config
from seamless_remote import buffer_remote, database_remote

seamless.config.init()
buffer_remote.ensure_initialized()
database_remote.ensure_initialized()
print(sys.stdin.readline(), end="")
seamless.close()
"""


def test_a_launched_service_leaves_the_programs_standard_input_alone(home: Home) -> None:
    home.configure(level=2)
    read, write = os.pipe()
    try:
        program = subprocess.Popen(
            [sys.executable, "-c", LAUNCHES_AND_READS],
            cwd=home.project,
            env=home.env,
            stdin=read,
            stdout=subprocess.PIPE,
            text=True,
        )
        os.close(read)
        os.write(write, b"the first line\n")
        output, _ = program.communicate()
        assert output == "the first line\n"
        assert home.services()
        # Nobody holds the other end: who writes into a pipe to such a program ends as well.
        with pytest.raises(BrokenPipeError):
            os.write(write, b"x")
    finally:
        os.close(write)
