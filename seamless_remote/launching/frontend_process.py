"""A launch on a frontend, as the program of a process of its own (see `frontend_launch`).

All that it starts for the launch is in its process group, and ends with it: when the launch is
over, when its time has run out, and when the process that wants it has gone. Tunnels and their
monitors, which are to stay, are not in that group. It has no standard input and no terminal to ask
at, and neither has any `ssh` that it starts.

It reads one line of JSON, and writes one line of JSON, the last one of its output.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import threading
import time
from typing import Any

from .folders import OtherFolderError
from .frontend_causes import launch_cause, login_cause
from .frontend_choice import Choice, choose_there, note_folders
from .launcher_report import too_long
from .ssh_login import TUNNELS_VARIABLE, Login, LoginError

TUNNEL_PATIENCE = 5.0
"""Seconds for which a tunnel that does not listen yet is waited for."""

TUNNEL_POLL = 0.05
"""Seconds between two looks at whether it does."""


def main() -> None:
    """Launch, and report `result` and `key`, or `error` and whether the `login` failed."""
    owner = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    wanted = json.loads(_line(owner))
    choices = [Choice(**each) for each in wanted["choices"]]
    launch_dict = choices[0].launch_dict
    login = Login(wanted["host"], for_tunnels=bool(launch_dict.get("tunnel")))
    watch = threading.Thread(target=_end_with_owner, args=(owner, wanted, login), daemon=True)
    watch.start()
    try:
        report = _launch(login, *choices)
    finally:
        login.close()
    _report(report)


def _launch(login: Login, common: Choice, own: Choice) -> dict[str, Any]:
    import remote_http_launcher

    try:
        login.open()
    except (LoginError, OSError) as exc:
        return {"error": login_cause(login.host, str(exc)), "login": True}
    choice = choose_there(login, common, own)
    launch_dict = choice.launch_dict
    note_folders(login, launch_dict)
    os.environ.update(login.environment)
    os.environ[TUNNELS_VARIABLE] = choice.tunnels
    # The launcher asks services by way of urllib, which would ask the user's proxy.
    for variable in ("no_proxy", "NO_PROXY"):
        names = (os.environ.get(variable), "localhost", launch_dict["hostname"])
        os.environ[variable] = ",".join(filter(None, names))
    handshake = remote_http_launcher.perform_local_handshake

    def handshake_when_listening(host: str, port: int, *args: Any, **options: Any) -> None:
        _await_listener(host, port)
        handshake(host, port, *args, **options)

    # The launcher gives a tunnel half a second to come up; then it pauses for three.
    remote_http_launcher.perform_local_handshake = handshake_when_listening
    try:
        return {"result": remote_http_launcher.run(launch_dict), "key": choice.key}
    except OtherFolderError as exc:
        return {"error": str(exc)}
    except Exception as exc:
        text = (str(exc).strip() or type(exc).__name__).splitlines()[-1]
        return {"error": launch_cause(login, launch_dict, choice.key, text)}


def _await_listener(host: str, port: int) -> None:
    """Wait until somebody listens there, `TUNNEL_PATIENCE` seconds at most."""
    give_up_at = time.monotonic() + TUNNEL_PATIENCE
    while time.monotonic() < give_up_at:
        try:
            socket.create_connection((host, port), timeout=TUNNEL_PATIENCE).close()
            return
        except OSError:
            time.sleep(TUNNEL_POLL)


def _line(source: int) -> bytes:
    line = b""
    while not line.endswith(b"\n") and (piece := os.read(source, 65536)):
        line += piece
    return line


def _report(report: dict[str, Any]) -> None:
    sys.stdout.write(f"\n{json.dumps(report)}\n")
    sys.stdout.flush()


def _end_with_owner(owner: int, wanted: dict[str, Any], login: Login) -> None:
    """End this process and what it has started if the owner has gone, or the time is over."""
    timeout = wanted["timeout"]
    gone, _, _ = select.select([owner], [], [], timeout)
    if not gone:
        stage = "" if login.is_open else f"logging in to {login.host}"
        _report({"error": too_long(wanted["choices"][0]["launch_dict"], timeout, stage)})
    login.close()
    os.killpg(0, signal.SIGKILL)
