"""The first programs on a cluster on which nothing runs yet: who launches what, and who is told."""

from __future__ import annotations

import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from services import Home, run_command

PROGRAM = """
import seamless, seamless.config
from seamless.transformer import delayed


@delayed
def multiply(a, b):
    import os
    return [a * b, os.getpid()]


if __name__ == "__main__":
    import os, sys
    seamless.config.init()
    result, worker = multiply(6, int(sys.argv[1])).run()
    assert result == 6 * int(sys.argv[1])
    print("elsewhere" if worker != os.getpid() else "here")
    seamless.close()
"""


def running_services(home: Home) -> Counter[str]:
    """How many of each service run under this HOME, be they in the launcher's books or not."""
    commands = [process.cmdline() for process in home.processes()]
    return Counter(os.path.basename(each[1]) for each in commands if "--status-file" in each)


def ports(home: Home) -> dict[str, Any]:
    """The port of each service in the launcher's books."""
    return {key.partition("-")[0]: state["port"] for key, state in home.services().items()}


def test_programs_that_begin_at_once_share_one_of_each_service(home: Home) -> None:
    home.configure(level=3, remote="jobserver")
    (home.project / "program.py").write_text(PROGRAM)

    def run(number: int) -> str:
        command = [sys.executable, "program.py", str(number)]
        return run_command(command, home=home, cwd=home.project).stdout.strip()

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(run, range(7, 10))) == ["elsewhere"] * 3
    once_each = {"hashserver": 1, "seamless-database": 1, "seamless-jobserver": 1}
    assert running_services(home) == once_each


def test_a_jobserver_is_told_of_the_stores_that_run_already(home: Home) -> None:
    home.configure(level=2)
    assert home.run(PROGRAM, arguments=["7"]).stdout.strip() == "here"
    stores = ports(home)
    assert stores.keys() == {"hashserver", "database"}
    home.configure(level=3, remote="jobserver")
    assert home.run(PROGRAM, arguments=["8"]).stdout.strip() == "elsewhere"
    assert ports(home).items() >= stores.items()
    (parameters,) = [
        state["parameters"] for key, state in home.services().items() if key.startswith("jobserver")
    ]
    for kind, store in (("buffer", "hashserver"), ("database", "database")):
        (told,) = parameters[kind]
        assert told["remote_url"] == f"http://localhost:{stores[store]}"
