"""Seamless's synchronous calls in a program that runs on trio, with a real jobserver."""

from __future__ import annotations

import json

from services import Home
from stored_buffers import put_file

SYNCHRONOUS_CALLS = """
import contextvars, json, os, threading
import anyio.to_thread
import seamless, seamless.config
from seamless import Checksum
from seamless.transformer import delayed, direct
from seamless_remote import open_nursery

stored = json.loads(os.environ["STORED"])


@delayed
def double(number):
    return 2 * number


@direct
def triple(number):
    return 3 * number


def in_copied_context(function, *args):
    outcome = []
    context = contextvars.copy_context()
    thread = threading.Thread(target=lambda: outcome.append(context.run(function, *args)))
    thread.start()
    thread.join()
    return outcome[0]


def calls(number):
    return {
        "delayed": lambda: double(number).run(),
        "direct": lambda: triple(number),
        "resolve": lambda: Checksum(stored[number]).resolve("text"),
    }


async def main():
    found = {}
    async with open_nursery():
        seamless.config.init()
        for name, make in calls(0).items():
            found[name] = make()
        for name, make in calls(1).items():
            found[f"{name} in a thread"] = await anyio.to_thread.run_sync(make)
        for name, make in calls(2).items():
            found[f"{name} in a copied context"] = in_copied_context(make)
        seamless.close()
    print(json.dumps(found))


if __name__ == "__main__":
    anyio.run(main, backend="trio")
"""


def test_synchronous_calls_work_in_a_trio_host_from_any_thread_and_in_any_context(
    home: Home,
) -> None:
    home.configure(level=3, remote="jobserver")
    stored = [put_file(home.buffers, f"text {number}".encode()).hex() for number in range(3)]
    program = home.run(SYNCHRONOUS_CALLS, env={"STORED": json.dumps(stored)}, warnings=("default",))
    found = json.loads(program.stdout.splitlines()[-1])
    assert found == {
        f"{call}{where}": value
        for number, where in enumerate(("", " in a thread", " in a copied context"))
        for call, value in (
            ("delayed", 2 * number),
            ("direct", 3 * number),
            ("resolve", f"text {number}"),
        )
    }
