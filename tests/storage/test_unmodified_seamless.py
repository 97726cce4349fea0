"""The Seamless packages as they are published, on this package: levels 0 to 2, and their tools."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from services import Home, run_command
from stored_buffers import fresh

PROGRAM = """
import json, os, sys
import seamless, seamless.config
from seamless.transformer import delayed

@delayed
def square(number):
    import os
    with open(os.environ["JOURNAL"], "a") as journal:
        journal.write(f"{number} {os.getpid()}\\n")
    return number * number

def compute(number):
    transformation = square(number)
    transformation.compute()
    if transformation.exception:
        sys.exit(transformation.exception)
    return {
        "value": transformation.run(),
        "result": transformation.result_checksum.hex(),
        "transformation": transformation.transformation_checksum.hex(),
    }

if __name__ == "__main__":
    told = main()
    seamless.close()
    print(json.dumps({**told, "pid": os.getpid()}))
"""

COMPUTE = "def main():\n    seamless.config.init()\n    return compute(int(sys.argv[1]))\n"
HEAD, MAIN = PROGRAM.split('if __name__ == "__main__":')


def program(main: str) -> str:
    return f'{HEAD}{main}\nif __name__ == "__main__":{MAIN}'


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Where a transformation notes each of its runs."""
    path = tmp_path / "journal"
    path.touch()
    return path


def run(home: Home, journal: Path, main: str, *arguments: str) -> Any:
    # Seamless itself warns of its fallbacks, and leaves files and forks to the collector.
    done = home.run(
        program(main),
        arguments=arguments,
        env={"JOURNAL": str(journal)},
        warnings=["default"],
        allow=["ResourceWarning"],
    )
    return json.loads(done.stdout.splitlines()[-1])


def runs(journal: Path) -> list[str]:
    return [line.split()[0] for line in journal.read_text().splitlines()]


def stored(home: Home, checksum: str) -> bool:
    return (home.buffers / checksum[:2] / checksum).is_file()


@pytest.mark.parametrize("execution", ["process", "spawn"])
def test_a_second_process_gets_the_result_without_running_the_code(
    home: Home, journal: Path, execution: str
) -> None:
    home.configure(level=2, execution=execution)
    first = run(home, journal, COMPUTE, "12")
    assert first["value"] == 144
    assert runs(journal) == ["12"]
    assert stored(home, first["result"])
    second = run(home, journal, COMPUTE, "12")
    assert runs(journal) == ["12"]
    assert second.pop("pid") != first.pop("pid")
    assert second == first


def test_set_stage_moves_between_the_levels(home: Home, journal: Path) -> None:
    home.configure(
        level=2,
        stages={"alone": [{"persistent": False}], "kept": [{"execution": "process"}]},
    )
    told = run(home, journal, STAGES)
    assert told["values"] == [1, 4, 9]
    assert told["clients"] == [[0, 0], [1, 0], [1, 1]]
    # Level 0 keeps nothing, level 1 buffers, level 2 results as well.
    folder = home.buffers / "STAGE-kept"
    kept = [(folder / each[:2] / each).is_file() for each in told["results"]]
    assert kept == [False, True, True]
    assert told["known"] == [False, False, True]
    assert runs(journal) == ["1", "2", "3"]


STAGES = """
def main():
    import asyncio
    from seamless_remote import buffer_remote, database_remote

    told = {"values": [], "clients": [], "results": [], "transformations": []}

    def at(number):
        told["clients"].append([
            len(buffer_remote._write_server_clients),
            len(database_remote._write_database_clients),
        ])
        done = compute(number)
        told["values"].append(done["value"])
        told["results"].append(done["result"])
        told["transformations"].append(done["transformation"])

    seamless.config.set_stage("alone")
    at(1)
    database_remote.DISABLED = True
    seamless.config.set_stage("kept")
    at(2)
    database_remote.DISABLED = False
    seamless.config.set_stage("alone")
    seamless.config.set_stage("kept")
    at(3)
    known = []
    for each in told["transformations"]:
        look_up = database_remote.get_transformation_result(each)
        known.append(asyncio.run(look_up) is not None)
    return {**told, "known": known}
"""


def test_upload_download_and_run(home: Home, tmp_path: Path) -> None:
    home.configure(level=2)
    content = fresh(300_000)
    file = home.project / "input.dat"
    file.write_bytes(content)
    checksum = hashlib.sha256(content).hexdigest()

    run_command(["seamless-upload", "-y", "input.dat"], home=home, allow=["ResourceWarning"])
    assert stored(home, checksum)
    assert (home.project / "input.dat.CHECKSUM").read_text().strip() == checksum

    run_command(
        ["seamless-download", "-y", checksum, "-o", "output.dat"],
        home=home,
        allow=["ResourceWarning"],
    )
    assert (home.project / "output.dat").read_bytes() == content

    journal = tmp_path / "runs"
    (home.project / "count.sh").write_text(f"wc -c < $1\necho run >> {journal}\n")
    for _ in range(2):
        done = run_command(
            ["seamless-run", "-y", "bash", "count.sh", "input.dat"],
            home=home,
            allow=["ResourceWarning"],
        )
        assert done.stdout.split() == ["300000"]
    assert journal.read_text().split() == ["run"]
