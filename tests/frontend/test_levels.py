"""The levels of delegation, on a frontend's real services, as programs see them."""

from __future__ import annotations

from pathlib import Path

import pytest
from laptop import Laptop
from services import run_command

PROGRAM = """
import glob, json, os, signal, sys, threading, time
from pathlib import Path
import seamless, seamless.config
from seamless.config import set_stage
from seamless.transformer import delayed

signs = os.environ["SIGNS"]


@delayed
def add(folder, a, b):
    import os, uuid
    open(os.path.join(folder, f"ran-{uuid.uuid4().hex}"), "w").close()
    return a + b


@delayed
def waits(folder, number):
    import os, time, uuid
    open(os.path.join(folder, f"waited-{uuid.uuid4().hex}"), "w").close()
    while not os.path.exists(os.path.join(folder, "go")):
        time.sleep(0.02)
    return number


def wait_for(found):
    while not found():
        time.sleep(0.02)


def run(job, *arguments):
    # Raises what `job.exception` names: `run` gives None for a failed one in some versions.
    result = job(signs, *arguments).run()
    assert result is not None
    return result


def tunnel_to(tool):
    (noted,) = Path("~/.remote-http-launcher/client").expanduser().glob(f"{tool}-*.tunnels")
    return [int(line.split()[0]) for line in noted.read_text().splitlines()]


def main():
    seamless.config.init()
    %s
    seamless.close()


if __name__ == "__main__":
    main()
"""

TWO_PROGRAMS = PROGRAM % "print(run(add, 20, 22))"

JOB = (
    PROGRAM
    % """
    print(run(add, 20, 22))
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(run(waits, 7)))
    thread.start()
    wait_for(lambda: glob.glob(os.path.join(signs, "waited-*")))
    for pid in sys.argv[1:] and tunnel_to("jobserver"):
        os.kill(pid, signal.SIGKILL)
    open(os.path.join(signs, "go"), "w").close()
    thread.join()
    print(outcome)
"""
)

DASK = (
    PROGRAM
    % """
    set_stage("dask")
    print(run(add, 20, 22))
    (record,) = Path("~/.remote-http-launcher/client").expanduser().glob("daskserver-*.json")
    port = json.loads(record.read_text())["port"]
    for pid in tunnel_to("daskserver"):
        if f"{port}:" in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
    print(run(add, 30, 33))
"""
)


CLUSTERS = ["tunneled", pytest.param("direct", marks=pytest.mark.longer)]


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_results_of_one_program_serve_the_next_one_and_its_end_ends_no_tunnel(
    laptop: Laptop, folder: Path, cluster: str
) -> None:
    laptop.choose(cluster)
    signs = {"SIGNS": str(folder)}
    assert laptop.run(TWO_PROGRAMS, env=signs).stdout.splitlines()[-1] == "42"
    tunnels = {process.pid for process in laptop.frontend.tunnels()}
    assert bool(tunnels) is (cluster == "tunneled")
    assert laptop.run(TWO_PROGRAMS, env=signs).stdout.splitlines()[-1] == "42"
    assert {process.pid for process in laptop.frontend.tunnels()} == tunnels
    assert len(list(folder.glob("ran-*"))) == 1
    # The buffers are on the frontend, and nowhere else.
    assert list((laptop.frontend.home / "buffers").rglob("*"))
    assert not laptop.buffers.exists()


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_job_runs_on_the_frontend_and_once_though_its_tunnel_dies(
    laptop: Laptop, folder: Path, cluster: str
) -> None:
    laptop.choose(cluster, level=3)
    arguments = ["cut"] if cluster == "tunneled" else []
    output = laptop.run(JOB, env={"SIGNS": str(folder)}, arguments=arguments).stdout
    assert output.splitlines()[-2:] == ["42", "[7]"]
    assert len(list(folder.glob("ran-*"))) == 1
    assert len(list(folder.glob("waited-*"))) == 1


@pytest.mark.longer
def test_a_stage_is_entered_again_when_only_the_tunnel_to_the_scheduler_has_died(
    laptop: Laptop, folder: Path
) -> None:
    commands = [{"execution": "remote"}, {"remote": "daskserver"}]
    laptop.choose("tunneled", stages={"dask": commands})
    output = laptop.run(DASK, env={"SIGNS": str(folder)}).stdout
    assert output.splitlines()[-2:] == ["42", "63"]


def test_a_tool_that_launches_leaves_standard_input_to_whoever_reads_it(laptop: Laptop) -> None:
    laptop.choose("tunneled")
    (laptop.project / "list").write_text("".join(f"{number:064x}\n" for number in range(1, 4)))
    loop = (
        "while read checksum; do seamless-resolve --quiet $checksum; echo $?; "
        "rm -f ~/.remote-http-launcher/client/*.json; done < list"
    )
    completed = run_command(["bash", "-c", loop], home=laptop)
    # They are nowhere; each has been asked for.
    assert completed.stdout.splitlines() == ["5", "5", "5"]
