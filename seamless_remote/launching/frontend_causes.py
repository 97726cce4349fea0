"""Why a launch on a frontend failed, found out after it has: in ssh's own words, or the service's.

The launcher tells what it could not do, and takes every refusal of ssh for a lack of conda.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any

from .launcher_report import LauncherReport
from .service_log import SHOWN_LINES, last_lines, quoted
from .ssh_login import Login

CLOCK_TOLERANCE = 30.0
"""Seconds by which the clocks may differ: the launcher takes a status file that is a minute old for
that of a service that does not start."""

_EXECUTOR = re.compile(r"SSHExecutor\[(.*?)\]")
"""How the launcher calls a frontend."""

_ADVICE = (
    (
        "could not resolve hostname",
        "Is the network up, and is 'ssh_hostname' in ~/.seamless/clusters.yaml the name by which "
        "ssh knows the host?",
    ),
    (
        "remote host identification has changed",
        "Somebody may listen in, or the host was set up anew: ask its administrators, then run "
        "`ssh {host}` by hand",
    ),
    (
        "host key verification failed",
        "This host is not known yet: run `ssh {host}` once by hand, and confirm its key",
    ),
    (
        "permission denied",
        "The host lets nobody in without a key here: try `ssh -o BatchMode=yes {host} true` by "
        "hand, and see to the key, or load it with `ssh-add`",
    ),
    (
        "too many authentication failures",
        "Name the key of this host in ~/.ssh/config (IdentityFile, with IdentitiesOnly yes)",
    ),
    (
        r"connection refused|timed out|no route to host|unreachable|connection (closed|reset)|"
        r"broken pipe|no login within",
        "Is the host up, and can this machine reach it? Try `ssh {host}` by hand",
    ),
    (
        r"bad configuration option|terminating,|bad owner or permissions",
        "See to ~/.ssh/config",
    ),
)
"""What ssh says, in small letters, and what to do then."""


def login_cause(host: str, words: str) -> str:
    """Two sentences about a login that failed: ssh's words, and what to do."""
    lines = [line.strip() for line in words.splitlines() if line.strip(" @")]
    text = "; ".join(line.rstrip(".") for line in lines[-3:]) or "no reason given"
    small = words.lower()
    advice = next(
        (advice for said, advice in _ADVICE if re.search(said, small)), "Try `ssh {host}` by hand"
    )
    return f"cannot log in to {host}: {text}. {advice.format(host=host)}"


def launch_cause(login: Login, launch_dict: dict[str, Any], key: str, error: str) -> str:
    """What there is to say of a launch that failed though the login is well. Blocks, for seconds.

    `error` is what the launcher says.
    """
    sentences = [_EXECUTOR.sub(r"\1", error).rstrip(".")]
    local = os.environ.get("REMOTE_HTTP_LAUNCHER_DIR")
    if local:
        sentences.append(
            f"REMOTE_HTTP_LAUNCHER_DIR is set to {local} here; remote-http-launcher uses that "
            "folder on the frontend, too: unset it"
        )
    sentences += _clock_and_shell(login)
    sentences.append(_service_words(login, launch_dict, key))
    return ". ".join(sentences)


def _clock_and_shell(login: Login) -> list[str]:
    started = time.time()
    asked = login.run("date +%s")
    now = (started + time.time()) / 2
    if asked is None:
        return [f"{login.host} does not run commands in time"]
    lines = asked.stdout.split()
    if asked.returncode or not lines or not lines[-1].isdigit():
        return []  # a host that allows the launcher's own commands only
    found = []
    if len(lines) > 1:
        said = asked.stdout.strip().rpartition("\n")[0][:200]
        found.append(
            f"The shell on {login.host} prints {said!r} at its start: its start-up files must "
            "print nothing where the shell is not interactive"
        )
    ahead = int(lines[-1]) - now
    if abs(ahead) > CLOCK_TOLERANCE:
        found.append(
            f"The clock of {login.host} is {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}:"
            " set it, for remote-http-launcher compares times"
        )
    return found


def _service_words(login: Login, launch_dict: dict[str, Any], key: str) -> str:
    """The end of the service's own log if it was started, or what the launcher lacks there."""
    report = LauncherReport.of(launch_dict)
    if report.has_started_service:
        path = f"~/.remote-http-launcher/server/{key}.log"
        # Without the helper, or where only the helpers may be run.
        for command in (f"rhl-logs {key} --tail 100", f"tail -n 100 {path}"):
            asked = login.run(command)
            if asked is not None and asked.returncode == 0:
                lines = last_lines(asked.stdout, SHOWN_LINES)
                return quoted(f"{path} on {login.host}", lines)
    helpers = login.run("rhl-inspect --help")
    if helpers is not None and helpers.returncode == 127:
        return (
            f"The helpers of remote-http-launcher (rhl-inspect and others) are not on the PATH of "
            f"`ssh {login.host} COMMAND`: install it there"
        )
    return f"The launcher's log is {launch_dict.get('log_file', 'not kept')}"
