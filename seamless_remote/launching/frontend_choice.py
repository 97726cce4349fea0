"""Chooses the key under which a service is launched on a frontend, or found running there.

Runs in the launching process, with its login. Each choice costs a command there, two where nothing
runs under the common key.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from .client_record import ClientRecord
from .folders import (
    OtherFolderError,
    are_same,
    is_written_the_same,
    named,
    served_folders,
    wanted_folders,
)
from .ssh_login import Login


@dataclass(frozen=True, slots=True)
class Choice:
    """A launch dict with its key, and where its tunnels are to be noted."""

    launch_dict: dict[str, Any]
    key: str
    tunnels: str

    @classmethod
    def of(cls, launch_dict: dict[str, Any], record: ClientRecord) -> Choice:
        return cls(launch_dict, record.path.stem, str(record.tunnels))


def choose_there(login: Login, common: Choice, own: Choice) -> Choice:
    """`own`, if a service of other folders runs under the common key, or one of these folders under
    the folders' own; `common` otherwise. Blocks, for seconds."""
    status = _status(login, common.key)
    wanted = wanted_folders(common.launch_dict)
    if status is not None and are_same(served_folders(status), wanted, partial(_is_same, login)):
        return common
    if status is not None or _status(login, own.key) is not None:
        return own
    # There is none that a record could be of.
    ClientRecord.of(common.launch_dict).forget()
    return common


def note_folders(login: Login, launch_dict: dict[str, Any]) -> None:
    """Have the launcher's record of the connection say which folders the service serves.

    A launch whose service serves others then fails with an OtherFolderError.
    """
    import remote_http_launcher

    create: Callable[..., dict[str, Any]] = remote_http_launcher.create_local_file

    def create_with_folders(
        configuration: Any, record: Any, status: dict[str, Any], observer: Any
    ) -> dict[str, Any]:
        served, wanted = served_folders(status), wanted_folders(launch_dict)
        if not are_same(served, wanted, partial(_is_same, login)):
            raise OtherFolderError(
                f"the service that runs there as {configuration.key} serves {named(served)}, "
                f"not {named(wanted)}: end it with `ssh {login.host} rhl-stop {configuration.key}`"
            )
        write = record.write

        def write_with_folders(payload: dict[str, Any]) -> None:
            if served is not None:
                payload["folders"] = list(served)
            write(payload)

        record.write = write_with_folders
        return create(configuration, record, status, observer)

    remote_http_launcher.create_local_file = create_with_folders


def _status(login: Login, key: str) -> dict[str, Any] | None:
    """The status file of a service there; None if there is none, or it cannot be read."""
    for command in (f"rhl-inspect {key}", f"cat ~/.remote-http-launcher/server/{key}.json"):
        asked = login.run(command)
        if asked is not None and asked.returncode == 0:
            try:
                # The shell may print something at its start.
                status = json.loads(asked.stdout[asked.stdout.find("{") :])
            except ValueError:
                return None
            return status if isinstance(status, dict) else None
        if asked is None or asked.returncode != 127:
            return None
    return None


def _is_same(login: Login, one: str, other: str) -> bool:
    """Whether two paths lead to one folder there. A host that allows the launcher's own commands
    only does not tell: then as they are written."""
    if is_written_the_same(one, other):
        return True
    asked = login.run(f"cd {_quoted(one)} && pwd -P && cd {_quoted(other)} && pwd -P")
    if asked is None or asked.returncode:
        return False
    *_, first, second = ["", "", *asked.stdout.splitlines()]
    return first == second


def _quoted(path: str) -> str:
    home, slash, rest = path.partition("/")
    return f"~/{shlex.quote(rest)}" if home == "~" and slash else shlex.quote(path)
