"""What importing the package does, and the names that the Seamless packages use of it."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import seamless.caching.buffer_writer  # noqa: F401 - its thread starts now, and not in a test

from seamless_remote import __version__

ROOT = Path(__file__).parent.parent

NAMES = {
    "seamless_remote": [
        "open_nursery",
        "current_nursery",
        "RemoteNursery",
        "Settings",
        "ServiceError",
        "__version__",
    ],
    "seamless_remote.client": ["close_all_clients", "Client", "ClientRestartRequiredError"],
    "seamless_remote.buffer_client": ["BufferClient", "BufferLaunchedClient"],
    "seamless_remote.database_client": ["DatabaseClient", "DatabaseLaunchedClient"],
    "seamless_remote.jobserver_client": ["JobserverClient", "JobserverLaunchedClient"],
    "seamless_remote.daskserver_remote": [
        "DaskserverLaunchedHandle",
        "activate",
        "deactivate",
        "ensure_initialized",
        "DISABLED",
    ],
}
ACTIVATION = [
    "DISABLED",
    "define_launched_client",
    "define_extern_client",
    "activate",
    "inspect_extern_clients",
    "inspect_launched_clients",
    "ensure_initialized",
]
COROUTINES = {
    "buffer_remote": [
        "get_buffer",
        "get_buffer_lengths",
        "get_filename",
        "promise",
        "write_buffer",
    ],
    "database_remote": [
        "get_transformation_result",
        "get_rev_transformations",
        "get_execution_record",
        "get_bucket_probe",
        "get_irreproducible_records",
        "set_transformation_result",
        "set_execution_record",
        "set_bucket_probe",
        "undo_transformation_result",
    ],
    "jobserver_remote": [
        "run_transformation",
        "cancel_transformation_async",
        "transformation_status_async",
    ],
}
FUNCTIONS = {
    "buffer_remote": ["has_write_server", "has_read_server"],
    "database_remote": ["has_write_server", "has_read_server"],
    "jobserver_remote": ["cancel_transformation", "transformation_status"],
}
LISTS = {
    "buffer_remote": ["_read_folders_clients", "_read_server_clients", "_write_server_clients"],
    "database_remote": ["_read_database_clients", "_write_database_clients"],
}


@pytest.mark.parametrize("module", NAMES)
def test_the_modules_have_the_names_that_others_use(module: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in NAMES[module] if not hasattr(found, name)] == []


@pytest.mark.parametrize("name", COROUTINES)
def test_the_activation_modules_have_the_functions_that_others_call(name: str) -> None:
    module = importlib.import_module(f"seamless_remote.{name}")
    assert [each for each in ACTIVATION if not hasattr(module, each)] == []
    for each in COROUTINES[name]:
        assert inspect.iscoroutinefunction(getattr(module, each)), each
    for each in FUNCTIONS[name]:
        assert not inspect.iscoroutinefunction(getattr(module, each)), each
    for each in LISTS.get(name, []):
        assert getattr(module, each) == []


def imported_by(statement: str) -> set[str]:
    """The modules, and threads, that are there after `statement`."""
    code = (
        f"{statement}; import sys, threading; "
        "print(*sys.modules, *(f'thread-{t.name}' for t in threading.enumerate()), sep='|')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(run.stdout.strip().split("|"))


def test_importing_the_package_loads_next_to_nothing_and_starts_nothing() -> None:
    there = imported_by("import seamless_remote")
    assert not there & {"anyio", "trio", "httpx", "zstandard", "distributed", "seamless", "asyncio"}
    assert "importlib.metadata" not in there
    assert {name for name in there if name.startswith("thread-")} == {"thread-MainThread"}


def test_importing_the_activation_modules_loads_no_backend_and_starts_nothing_of_ours() -> None:
    there = imported_by(
        "from seamless_remote import buffer_remote, database_remote, jobserver_remote, "
        "daskserver_remote"
    )
    assert not there & {"trio", "httpx", "distributed", "dask", "tqdm", "remote_http_launcher"}
    assert not there & {"anyio._backends._asyncio", "anyio._backends._trio"}
    assert not {name for name in there if name.startswith("thread-seamless-remote")}


def test_the_version_stands_in_the_package_alone() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    assert not re.search(r"^version\b", project, re.MULTILINE)
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_every_file_that_the_readme_points_to_is_there() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
