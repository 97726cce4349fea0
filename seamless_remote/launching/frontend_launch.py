"""Launches a service on a frontend: another machine, by way of ssh, perhaps behind a tunnel.

One launch of a service at a time is made from this machine, by whatever programs. A record of an
earlier launch at whose address the service answers saves all of it.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from ..nursery import process
from .client_record import ClientRecord
from .evidence import Evidence
from .folders import wanted_folders, with_own_key_there
from .frontend_choice import Choice
from .ssh_login import ask_there

logger = logging.getLogger(__name__)

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from seamless_remote.launching.frontend_process import main; main()"
)

LOCK_PATIENCE = 300.0
"""Seconds to wait for a launch by another process if launches have no bound."""


class FrontendLaunchError(RuntimeError):
    """A launch on a frontend failed; the text says why, and what to do.

    `cannot_log_in`: not even the login succeeded.
    """

    def __init__(self, text: str, *, cannot_log_in: bool = False) -> None:
        super().__init__(text)
        self.cannot_log_in = cannot_log_in


def frontend_of(launch_dict: dict[str, Any]) -> str | None:
    """The name by which ssh knows the machine of the service; None for a service of this one."""
    host = launch_dict.get("hostname")
    if host is None:
        return None
    ssh_host = launch_dict.get("ssh_hostname")
    return str(host if ssh_host is None else ssh_host)


def is_gone(launch_dict: dict[str, Any], result: dict[str, Any]) -> bool:
    """Whether nothing listens any more where a launch has led to. Blocks, as
    `ClientRecord.evidence`."""
    return ClientRecord.of(launch_dict).evidence(result) is Evidence.GONE


def answers_by_another_way(launch_dict: dict[str, Any], result: dict[str, Any]) -> bool:
    """Whether a service whose tunnel is silent answers through a login of its own: then it is well,
    and the way to it is lost. Blocks, for seconds.

    If it does not, it may be busy, or its whole machine be out of reach: that may pass.
    """
    record = ClientRecord.of(launch_dict)
    host = frontend_of(launch_dict)
    port = result.get(f"tunneled-{record.port_name}")
    if record.healthcheck is None or host is None or port is None:
        return False
    address = f"{launch_dict['hostname']}:{port}"
    question = f"GET {record.healthcheck} HTTP/1.0\r\nHost: {address}\r\n\r\n"
    answer = ask_there(host, address, question.encode())
    return re.match(rb"HTTP/1\.[01] 2", answer) is not None


def launch_on_frontend(name: str, launch_dict: dict[str, Any]) -> dict[str, Any]:
    """The record of the service's connection: `hostname`, `port` and more (see `ClientRecord`).

    Where another service of the launch dict's key serves other folders there, the launch dict is
    changed to one with a key of its own (see `folders`).

    Blocks for seconds, for `Settings.launch_timeout` at most. LauncherError for a launch dict that
    the launcher rejects; FrontendLaunchError.
    """
    common = ClientRecord.of(launch_dict)
    own_dict = with_own_key_there(launch_dict, common.path.stem)
    own = ClientRecord.of(own_dict)
    timeout = process.settings().launch_timeout
    started = time.monotonic()
    with common.lock(LOCK_PATIENCE if timeout is None else timeout):
        for record, its_dict in ((own, own_dict), (common, launch_dict)):
            if not record.is_for(wanted_folders(launch_dict)):
                continue  # others use it
            found = record.answering()
            if found is not None:
                launch_dict.update(its_dict)
                return found
            record.forget()
        if timeout is not None:
            timeout = max(1.0, timeout - (time.monotonic() - started))
        choices = Choice.of(launch_dict, common), Choice.of(own_dict, own)
        result, key = _launched(name, choices, timeout)
        if key == own.path.stem:
            launch_dict.update(own_dict)
        return result


def _launched(
    name: str, choices: tuple[Choice, Choice], timeout: float | None
) -> tuple[dict[str, Any], str]:
    """The launcher's result, and the key of the choice that was made."""
    wanted = {
        "host": frontend_of(choices[0].launch_dict),
        "choices": [asdict(each) for each in choices],
        "timeout": timeout,
    }
    line = json.dumps(wanted).encode() + b"\n"
    # Where nobody looks at it, its progress is not shown: it is in the launcher's log.
    stderr = None if sys.stderr is not None and sys.stderr.isatty() else subprocess.STDOUT
    launcher = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, json.dumps(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
    )
    with launcher:
        assert launcher.stdin is not None
        assert launcher.stdout is not None
        # It ends itself when this end of the pipe is closed.
        with suppress(BrokenPipeError):
            launcher.stdin.write(line)
            launcher.stdin.flush()
        output = launcher.stdout.read().decode(errors="replace")
    report = _report_in(output)
    logger.debug("the launch of %s came to: %s", name, report)
    if "result" not in report:
        text = report.get("error", f"the launching process failed: {output.strip()[-500:]}")
        raise FrontendLaunchError(text, cannot_log_in=bool(report.get("login")))
    return report["result"], report["key"]


def _report_in(output: str) -> dict[str, Any]:
    try:
        report = json.loads((output.strip() or "{}").splitlines()[-1])
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}
