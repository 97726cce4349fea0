"""A service that does not start: the error quotes what the service itself has said, at once."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import yaml
from services import HOST, Home

PROGRAM = """
import json
import seamless, seamless.config
from seamless_remote import LaunchError

try:
    seamless.config.init()
except LaunchError as exc:
    print(json.dumps(str(exc)))
seamless.close()
"""


def launch_error(home: Home, path: Path | None = None) -> str:
    env = {} if path is None else {"PATH": f"{path}{os.pathsep}{home.env['PATH']}"}
    program = home.run(PROGRAM, env=env, warnings=("default",))
    return str(json.loads(program.stdout.splitlines()[-1]))


def log_of(home: Home) -> Path:
    (log,) = home.state.glob("server/jobserver*.log")
    return log


def put_program(folder: Path, text: str) -> Path:
    """A folder for PATH, with a jobserver that is this script."""
    folder.mkdir()
    program = folder / "seamless-jobserver"
    program.write_text(text)
    program.chmod(0o755)
    return folder


def test_a_port_range_with_nothing_free_is_told_in_the_services_own_words(home: Home) -> None:
    home.configure(level=3, remote="jobserver")
    clusters = home.path / ".seamless" / "clusters.yaml"
    definition = yaml.safe_load(clusters.read_text())
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        entry = definition[home.cluster]["frontends"][0]["jobserver"]
        entry["port_start"] = entry["port_end"] = port
        clusters.write_text(yaml.safe_dump(definition))
        message = launch_error(home)
    assert f"No free port available in range {port}-{port}" in message
    assert str(log_of(home)) in message
    assert len(message.splitlines()) <= 11


def test_a_service_that_ends_at_its_start_is_told_with_the_last_lines_of_its_log(
    home: Home, tmp_path: Path
) -> None:
    home.configure(level=3, remote="jobserver")
    lines = "\n".join(f"echo line {number}; echo" for number in range(30))
    script = f"#!/bin/sh\n{lines}\necho 'ImportError: no such thing' >&2\nexit 3\n"
    message = launch_error(home, put_program(tmp_path / "bin", script))
    assert "its process, " in message
    quoted = [line.strip() for line in message.splitlines()[1:]]
    assert quoted == [*(f"line {number}" for number in range(21, 30)), "ImportError: no such thing"]


def test_the_log_of_an_earlier_run_is_not_taken_for_this_ones(home: Home, tmp_path: Path) -> None:
    home.configure(level=3, remote="jobserver")
    assert "said once" in launch_error(
        home, put_program(tmp_path / "talking", "#!/bin/sh\necho said once\nexit 3\n")
    )
    message = launch_error(home, put_program(tmp_path / "dumb", "#!/bin/sh\nexit 3\n"))
    assert "said once" not in message
    assert "Check that the service is installed" in message
    # Neither failure stands in the way of the next launch.
    assert home.run(PROGRAM, warnings=("default",)).stdout == ""
