"""The steps of the demo, one function each: run something, check what came of it, say so.

A step gets the `Place` and the `Story` so far, returns the lines to show, and raises a `StepError`
where something is not as it should be. The steps build on each other, in the order of `STEPS`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from . import programs
from .place import CLUSTER, Ended, Place, StepError

LIMIT = "200000"
PRIMES = 17984
PARTS = "4"


@dataclass
class Story:
    """What a later step needs of an earlier one."""

    transformation: str = ""
    result: str = ""


Lines = Sequence[str]
Step = Callable[[Place, Story], Lines]


def level_0(place: Place, _: Story) -> Lines:
    """Level 0: in process"""
    project = place.project("level-0", {"persistent": False}, {"execution": "process"})
    told = place.run_program(programs.COUNT_PRIMES, project, LIMIT)
    _expect(told["value"], PRIMES, "value")
    _expect(place.runs("count_primes"), [told["pid"]], "processes in which the code ran")
    return [f"computed in the program's own process {_timing(told)}; nothing is kept"]


def level_1(place: Place, story: Story) -> Lines:
    """Level 1: buffers are kept"""
    before = len(place.runs("count_primes"))
    project = _storage_project(place)
    told = place.run_program(programs.WITHOUT_DATABASE + programs.COUNT_PRIMES, project, LIMIT)
    _expect(told["value"], PRIMES, "value")
    _expect(len(place.runs("count_primes")) - before, 1, "runs of the code")
    story.result = told["result"]
    read = place.run_program(
        programs.WITHOUT_DATABASE + programs.READ_BUFFER, project, story.result
    )
    _expect(read["value"], PRIMES, "value of the buffer")
    return [
        f"computed in the program's own process {_timing(told)}, launching included",
        f"its result, buffer {_short(story.result)}, went to the hashserver",
        f"another process reads it there by its checksum: {read['value']} {_timing(read)}",
    ]


def level_2(place: Place, story: Story) -> Lines:
    """Level 2: results are cached"""
    before = len(place.runs("count_primes"))
    project = _storage_project(place)
    first = place.run_program(programs.COUNT_PRIMES, project, LIMIT)
    _expect(first["value"], PRIMES, "value")
    _expect(len(place.runs("count_primes")) - before, 1, "runs of the code")
    second = place.run_program(programs.COUNT_PRIMES, project, LIMIT)
    _expect(second["value"], PRIMES, "value from the cache")
    _expect(second["result"], first["result"], "checksum of the result")
    _expect(len(place.runs("count_primes")) - before, 1, "runs of the code, after the second time")
    story.transformation = first["transformation"]
    return [
        f"process {first['pid']} computes it {_timing(first)}, launching included",
        f"the database knows: transformation {_short(story.transformation)}"
        f" has result {_short(first['result'])}",
        f"process {second['pid']} asks for the same and gets it from there {_timing(second)};"
        " the code has not run again",
    ]


def resolve(place: Place, story: Story) -> Lines:
    """seamless-resolve: a buffer by its checksum"""
    project = _storage_project(place)
    _succeed(place, ["seamless-resolve", story.result, "--output", "primes"], project)
    digest = _sha256sum(place, project / "primes")
    _expect(digest, story.result, "sha256sum of the file")
    content = (project / "primes").read_bytes()
    return [
        f"seamless-resolve {_short(story.result)} --output primes: {len(content)} bytes",
        "sha256sum of the file is that checksum",
    ]


def fingertip(place: Place, _: Story) -> Lines:
    """seamless-fingertip: a buffer that nobody kept"""
    project = _storage_project(place)
    made = place.run_program(programs.COUNT_PRIMES, project, "3000", "--scratch")
    before = len(place.runs("count_primes"))
    refused = place.run(["seamless-resolve", made["result"], "--output", "scratch"], project)
    if refused.status == 0:
        raise StepError("seamless-resolve has found a scratch result that should not be kept")
    _succeed(place, ["seamless-fingertip", made["result"], "--output", "scratch"], project)
    _expect(_sha256sum(place, project / "scratch"), made["result"], "sha256sum of the file")
    _expect(len(place.runs("count_primes")) - before, 1, "runs of the code")
    return [
        f"a scratch transformation: its result {_short(made['result'])} is known, not kept",
        f"seamless-resolve says (exit status {refused.status}): {_last_line(refused.stderr)}",
        "seamless-fingertip runs the transformation again, and there it is",
    ]


def snapshot(place: Place, story: Story) -> Lines:
    """The remote nursery: what is open in a process, here in a trio program"""
    told = place.run_program(programs.SNAPSHOT, _storage_project(place), story.transformation)
    _expect(told["value"], PRIMES, "value")
    _expect(told["written"], True, "whether the buffer was written")
    nursery = told["snapshot"]
    lines = [f"a {nursery['backend']} nursery, {nursery['state']}"]
    for service in nursery["services"]:
        lines.append(f"{service['name']}: {service['state']}")
        lines += [f"  {_items(client)}" for client in service["clients"]]
    return [
        *lines,
        _items(nursery["limiter"]),
        *(_items(task) for task in nursery["tasks"]),
    ]


def jobserver(place: Place, _: Story) -> Lines:
    """Level 3: on the jobserver"""
    before = len(place.runs("count_primes"))
    told = place.run_program(programs.COUNT_PRIMES, _remote_project(place, "jobserver"), LIMIT)
    _expect(told["value"], PRIMES, "value")
    return [_elsewhere(place, told, "count_primes", before, "a worker of the jobserver")]


def failure(place: Place, _: Story) -> Lines:
    """Level 3: code that fails"""
    told = place.run_program(programs.FAIL, _remote_project(place, "jobserver"))
    if "ZeroDivisionError" not in told["error"]:
        raise StepError(f"the user's error is not in: {told['error']}")
    _expect(len(place.runs("divide")), 1, "runs of the failing code")
    return [
        "the code ran once, and its traceback came back to the program:",
        f"  {_last_line(told['error'])}",
    ]


def cancellation(place: Place, _: Story) -> Lines:
    """Level 3: a job that is cancelled"""
    told = place.run_program(programs.CANCEL, _remote_project(place, "jobserver"))
    _expect(told["status"], "canceled", "status at the jobserver")
    _expect(told["late_result"], None, "result in the database")
    return [
        f"cancelled while it ran ({told['seconds']:.2f} s): {told['exception']}",
        f"the jobserver says: {told['status']}",
        "its process ran to its end, and no result of it went to the database",
    ]


def dask(place: Place, _: Story) -> Lines:
    """Level 3: on Dask"""
    before = len(place.runs("count_primes"))
    told = place.run_program(programs.COUNT_PRIMES, _remote_project(place, "daskserver"), LIMIT)
    _expect(told["value"], PRIMES, "value")
    return [_elsewhere(place, told, "count_primes", before, "a Dask worker")]


def nested(place: Place, _: Story) -> Lines:
    """Level 3: a transformation that asks for others, on Dask"""
    project = _remote_project(place, "daskserver")
    told = place.run_program(programs.NEST, project, LIMIT, PARTS)
    _expect(told["value"], PRIMES, "value")
    _expect(len(place.runs("count_part")), int(PARTS), "runs of the nested code")
    line = _elsewhere(place, told, "count_primes_in_parts", 0, "a Dask worker")
    workers = ", ".join(map(str, sorted(set(place.runs("count_part")))))
    return [line, f"its {PARTS} nested transformations ran in process {workers}"]


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
)


def _storage_project(place: Place) -> Path:
    """Levels 1 and 2: the program computes by itself, and keeps what comes of it."""
    return place.project(
        "storage", {"cluster": CLUSTER}, {"persistent": True}, {"execution": "process"}
    )


def _remote_project(place: Place, remote: str) -> Path:
    """Level 3. A project of its own has its own storage, in which nothing is known yet."""
    return place.project(
        f"on-{remote}", {"cluster": CLUSTER}, {"execution": "remote"}, {"remote": remote}
    )


def _elsewhere(place: Place, told: dict[str, Any], name: str, before: int, where: str) -> str:
    """Check that the code ran once more, and not in the program's process; say where it ran."""
    runs = place.runs(name)[before:]
    _expect(len(runs), 1, "runs of the code")
    if runs[0] == told["pid"]:
        raise StepError(f"the code ran in the program itself (process {runs[0]})")
    return f"process {told['pid']} asked, process {runs[0]} ({where}) computed {_timing(told)}"


def _succeed(place: Place, command: Sequence[str], directory: Path) -> Ended:
    ended = place.run(command, directory)
    if ended.status != 0:
        raise StepError(f"{command[0]} ended with status {ended.status}: {ended.stderr.strip()}")
    return ended


def _sha256sum(place: Place, path: Path) -> str:
    """By the command of that name where the machine has it."""
    if shutil.which("sha256sum") is None:
        return sha256(path.read_bytes()).hexdigest()
    return _succeed(place, ["sha256sum", path.name], path.parent).stdout.split()[0]


def _expect(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise StepError(f"{what}: {found!r} where {expected!r} was expected")


def _timing(told: dict[str, Any]) -> str:
    return f"({told['seconds']:.2f} s)"


def _short(checksum: str) -> str:
    return f"{checksum[:10]}..."


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else "nothing"


def _items(mapping: dict[str, Any]) -> str:
    """A part of a snapshot in one line: its name, and what else is known."""
    known = {key: value for key, value in mapping.items() if value is not None}
    shown = {
        key: f"{value:.4f}" if isinstance(value, float) else value for key, value in known.items()
    }
    name = shown.pop("name")
    return f"{name}: " + ", ".join(f"{key} {value}" for key, value in shown.items())
