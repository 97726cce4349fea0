"""The steps of the demo. Each runs programs or commands in the sandbox and checks the outcome.

A step returns the lines to print; its docstring is its title. It raises StepError on an unexpected
outcome. The steps depend on each other, in the order of `STEPS`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from . import programs
from .frontend import ADDRESS, FrontendError, find_sshd
from .sandbox import CLUSTER, FRONTEND_CLUSTER, Completed, Sandbox, StepError

LIMIT = "200000"
PRIMES = 17984
PARTS = "4"


@dataclass
class Results:
    """Checksums that later steps need from earlier ones."""

    transformation: str = ""
    result: str = ""


Lines = Sequence[str]
Step = Callable[[Sandbox, Results], Lines]


def level_0(sandbox: Sandbox, _: Results) -> Lines:
    """Level 0: in process"""
    project = sandbox.project("level-0", {"persistent": False}, {"execution": "process"})
    report = sandbox.run_program(programs.COUNT_PRIMES, project, LIMIT)
    _expect(report["value"], PRIMES, "value")
    _expect(sandbox.runs("count_primes"), [report["pid"]], "processes in which the code ran")
    return [f"computed in the program's own process {_timing(report)}; nothing is kept"]


def level_1(sandbox: Sandbox, results: Results) -> Lines:
    """Level 1: buffers are kept"""
    before = len(sandbox.runs("count_primes"))
    project = _storage_project(sandbox)
    report = sandbox.run_program(programs.WITHOUT_DATABASE + programs.COUNT_PRIMES, project, LIMIT)
    _expect(report["value"], PRIMES, "value")
    _expect(len(sandbox.runs("count_primes")) - before, 1, "runs of the code")
    results.result = report["result"]
    read = sandbox.run_program(
        programs.WITHOUT_DATABASE + programs.READ_BUFFER, project, results.result
    )
    _expect(read["value"], PRIMES, "value of the buffer")
    return [
        f"computed in the program's own process {_timing(report)}, launching included",
        f"its result, buffer {_short(results.result)}, was written to the hashserver",
        f"another process reads the buffer by its checksum: {read['value']} {_timing(read)}",
    ]


def level_2(sandbox: Sandbox, results: Results) -> Lines:
    """Level 2: results are cached"""
    before = len(sandbox.runs("count_primes"))
    project = _storage_project(sandbox)
    first = sandbox.run_program(programs.COUNT_PRIMES, project, LIMIT)
    _expect(first["value"], PRIMES, "value")
    _expect(len(sandbox.runs("count_primes")) - before, 1, "runs of the code")
    second = sandbox.run_program(programs.COUNT_PRIMES, project, LIMIT)
    _expect(second["value"], PRIMES, "value from the cache")
    _expect(second["result"], first["result"], "checksum of the result")
    _expect(
        len(sandbox.runs("count_primes")) - before, 1, "runs of the code, after the second time"
    )
    results.transformation = first["transformation"]
    return [
        f"process {first['pid']} computes the result {_timing(first)}, launching included",
        f"the database records it: transformation {_short(results.transformation)}"
        f" has result {_short(first['result'])}",
        f"process {second['pid']} gets the result from the database {_timing(second)};"
        " the code does not run again",
    ]


def resolve(sandbox: Sandbox, results: Results) -> Lines:
    """seamless-resolve: a buffer by its checksum"""
    project = _storage_project(sandbox)
    _succeed(sandbox, ["seamless-resolve", results.result, "--output", "primes"], project)
    digest = _sha256sum(sandbox, project / "primes")
    _expect(digest, results.result, "sha256sum of the file")
    content = (project / "primes").read_bytes()
    return [
        f"seamless-resolve {_short(results.result)} --output primes: {len(content)} bytes",
        "the file's sha256sum is the checksum",
    ]


def fingertip(sandbox: Sandbox, _: Results) -> Lines:
    """seamless-fingertip: a buffer that was not kept"""
    project = _storage_project(sandbox)
    made = sandbox.run_program(programs.COUNT_PRIMES, project, "3000", "--scratch")
    before = len(sandbox.runs("count_primes"))
    refused = sandbox.run(["seamless-resolve", made["result"], "--output", "scratch"], project)
    if refused.status == 0:
        raise StepError("seamless-resolve found the result of a scratch transformation")
    _succeed(sandbox, ["seamless-fingertip", made["result"], "--output", "scratch"], project)
    _expect(_sha256sum(sandbox, project / "scratch"), made["result"], "sha256sum of the file")
    _expect(len(sandbox.runs("count_primes")) - before, 1, "runs of the code")
    return [
        f"a scratch transformation: the database knows its result {_short(made['result'])},"
        " the hashserver does not have the buffer",
        f"seamless-resolve fails (exit status {refused.status}): {_last_line(refused.stderr)}",
        "seamless-fingertip runs the transformation again and writes the buffer",
    ]


def snapshot(sandbox: Sandbox, results: Results) -> Lines:
    """The remote nursery: its snapshot in a trio program"""
    report = sandbox.run_program(
        programs.SNAPSHOT, _storage_project(sandbox), results.transformation
    )
    _expect(report["value"], PRIMES, "value")
    _expect(report["written"], True, "whether the buffer was written")
    nursery = report["snapshot"]
    lines = [f"a {nursery['backend']} nursery, {nursery['state']}"]
    for service in nursery["services"]:
        lines.append(f"{service['name']}: {service['state']}")
        lines += [f"  {_items(client)}" for client in service["clients"]]
    return [
        *lines,
        _items(nursery["limiter"]),
        *(_items(task) for task in nursery["tasks"]),
    ]


def jobserver(sandbox: Sandbox, _: Results) -> Lines:
    """Level 3: on the jobserver"""
    before = len(sandbox.runs("count_primes"))
    report = sandbox.run_program(
        programs.COUNT_PRIMES, _remote_project(sandbox, "jobserver"), LIMIT
    )
    _expect(report["value"], PRIMES, "value")
    return [
        _check_ran_elsewhere(sandbox, report, "count_primes", before, "a worker of the jobserver")
    ]


def failure(sandbox: Sandbox, _: Results) -> Lines:
    """Level 3: code that fails"""
    report = sandbox.run_program(programs.FAIL, _remote_project(sandbox, "jobserver"))
    if "ZeroDivisionError" not in report["error"]:
        raise StepError(f"no ZeroDivisionError in the error: {report['error']}")
    _expect(len(sandbox.runs("divide")), 1, "runs of the failing code")
    return [
        "the code ran once, and its traceback came back to the program:",
        f"  {_last_line(report['error'])}",
    ]


def cancellation(sandbox: Sandbox, _: Results) -> Lines:
    """Level 3: a job that is cancelled"""
    report = sandbox.run_program(programs.CANCEL, _remote_project(sandbox, "jobserver"))
    _expect(report["status"], "canceled", "status at the jobserver")
    _expect(report["late_result"], None, "result in the database")
    return [
        f"cancelled while running ({report['seconds']:.2f} s): {report['exception']}",
        f"status at the jobserver: {report['status']}",
        "its process ran to the end, and its result did not go to the database",
    ]


def dask(sandbox: Sandbox, _: Results) -> Lines:
    """Level 3: on Dask"""
    before = len(sandbox.runs("count_primes"))
    report = sandbox.run_program(
        programs.COUNT_PRIMES, _remote_project(sandbox, "daskserver"), LIMIT
    )
    _expect(report["value"], PRIMES, "value")
    return [_check_ran_elsewhere(sandbox, report, "count_primes", before, "a Dask worker")]


def nested(sandbox: Sandbox, _: Results) -> Lines:
    """Level 3: nested transformations, on Dask"""
    project = _remote_project(sandbox, "daskserver")
    report = sandbox.run_program(programs.NEST, project, LIMIT, PARTS)
    _expect(report["value"], PRIMES, "value")
    _expect(len(sandbox.runs("count_part")), int(PARTS), "runs of the nested code")
    line = _check_ran_elsewhere(sandbox, report, "count_primes_in_parts", 0, "a Dask worker")
    workers = ", ".join(map(str, sorted(set(sandbox.runs("count_part")))))
    return [line, f"its {PARTS} nested transformations ran in process {workers}"]


def frontend(sandbox: Sandbox, _: Results) -> Lines:
    """Level 3: a frontend over SSH"""
    if find_sshd() is None:
        return ["left out: there is no OpenSSH server here (Debian: openssh-server)"]
    try:
        there = sandbox.open_frontend()
    except FrontendError as exc:
        raise StepError(str(exc)) from exc
    project = sandbox.project(
        "on-a-frontend",
        {"cluster": FRONTEND_CLUSTER},
        {"execution": "remote"},
        {"remote": "jobserver"},
    )
    before = len(sandbox.runs("count_primes"))
    report = sandbox.run_program(programs.COUNT_PRIMES, project, LIMIT)
    _expect(report["value"], PRIMES, "value")
    line = _check_ran_elsewhere(sandbox, report, "count_primes", before, "on the frontend")
    tunnels = there.tunnels()
    for process in tunnels:
        process.kill()
    again = sandbox.run_program(programs.COUNT_PRIMES, project, LIMIT)
    _expect(again["result"], report["result"], "checksum of the result")
    _expect(len(sandbox.runs("count_primes")) - before, 1, "runs of the code")
    return [
        line,
        f"its services listen at {ADDRESS}; this side reaches them through ssh tunnels only",
        "all tunnels are killed; the next program has new ones, and gets the result from the"
        f" database {_timing(again)}",
    ]


STEPS: Sequence[Step] = (
    level_0,
    level_1,
    level_2,
    resolve,
    fingertip,
    snapshot,
    jobserver,
    failure,
    cancellation,
    dask,
    nested,
    frontend,
)


def _storage_project(sandbox: Sandbox) -> Path:
    """Levels 1 and 2: the program computes in its own process and stores the results."""
    return sandbox.project(
        "storage", {"cluster": CLUSTER}, {"persistent": True}, {"execution": "process"}
    )


def _remote_project(sandbox: Sandbox, remote: str) -> Path:
    """Level 3. Its own project has its own, empty storage, so nothing is cached yet."""
    return sandbox.project(
        f"on-{remote}", {"cluster": CLUSTER}, {"execution": "remote"}, {"remote": remote}
    )


def _check_ran_elsewhere(
    sandbox: Sandbox, report: dict[str, Any], name: str, before: int, worker: str
) -> str:
    """Check that the code ran once, and in another process; returns a line to print."""
    runs = sandbox.runs(name)[before:]
    _expect(len(runs), 1, "runs of the code")
    if runs[0] == report["pid"]:
        raise StepError(f"the code ran in the program's own process {runs[0]}")
    return (
        f"process {report['pid']} submitted it, process {runs[0]} ({worker}) computed it"
        f" {_timing(report)}"
    )


def _succeed(sandbox: Sandbox, command: Sequence[str], directory: Path) -> Completed:
    completed = sandbox.run(command, directory)
    if completed.status != 0:
        raise StepError(
            f"{command[0]} exited with status {completed.status}: {completed.stderr.strip()}"
        )
    return completed


def _sha256sum(sandbox: Sandbox, path: Path) -> str:
    """The SHA-256 of a file, computed with another tool if this machine has it."""
    if shutil.which("sha256sum") is None:
        return sha256(path.read_bytes()).hexdigest()
    return _succeed(sandbox, ["sha256sum", path.name], path.parent).stdout.split()[0]


def _expect(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise StepError(f"{what}: expected {expected!r}, found {found!r}")


def _timing(report: dict[str, Any]) -> str:
    return f"({report['seconds']:.2f} s)"


def _short(checksum: str) -> str:
    return f"{checksum[:10]}..."


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else "nothing"


def _items(mapping: dict[str, Any]) -> str:
    """One part of a snapshot as one line: its name, then its known values."""
    known = {key: value for key, value in mapping.items() if value is not None}
    shown = {
        key: f"{value:.4f}" if isinstance(value, float) else value for key, value in known.items()
    }
    name = shown.pop("name")
    return f"{name}: " + ", ".join(f"{key} {value}" for key, value in shown.items())
