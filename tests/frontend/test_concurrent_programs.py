"""Programs that start at once, and programs that end amid a launch."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter

from laptop import Laptop
from network_path import Way
from services import wait_until

PROGRAMS = 4

WRITES = """
import asyncio
import seamless, seamless.config
from seamless import Buffer
from seamless_remote import buffer_remote

seamless.config.init()
buffer = Buffer(b"the same for all")
print(asyncio.run(buffer_remote.write_buffer(buffer.get_checksum(), buffer)))
seamless.close()
"""


def start(laptop: Laptop) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITES],
        cwd=laptop.project,
        env=laptop.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_programs_that_start_at_once_launch_each_service_once(laptop: Laptop) -> None:
    laptop.choose("tunneled")
    programs = [start(laptop) for _ in range(PROGRAMS)]
    for program in programs:
        output, errors = program.communicate()
        assert output.strip() == "True", errors
    tools = Counter(
        tool
        for process in laptop.frontend.services()
        for tool in ("hashserver", "seamless-database")
        if any(word.endswith(f"/{tool}") for word in process.cmdline())
    )
    assert tools == {"hashserver": 1, "seamless-database": 1}


def test_a_program_that_is_killed_amid_a_launch_leaves_no_process(laptop: Laptop) -> None:
    laptop.choose("tunneled")
    laptop.network.put(Way.SILENT)
    program = start(laptop)
    wait_until(lambda: laptop.network.connections, what="a login")
    program.send_signal(signal.SIGKILL)
    program.communicate()
    wait_until(lambda: not laptop.processes(), what="the end of all its processes")
