"""The programs of the demo, written as a Seamless user would write them.

User programs do not import seamless_remote; a few of these do, to show what happens inside.

A program runs in a project directory, whose seamless.yaml and seamless.profile.yaml decide where
the work is done, and prints one JSON object. Each transformation appends a line with its name and
process id to a journal file. From it the demo knows how often the code has run, and where.
"""

from __future__ import annotations

_HEAD = """\
import json, os, sys, time
import seamless, seamless.config
from seamless.transformer import delayed

seamless.config.init()
ready = time.perf_counter()
"""

TRANSFORMATION = """\
@delayed
def count_primes(limit):
    import os
    with open(os.environ["DEMO_JOURNAL"], "a") as journal:
        journal.write(f"count_primes {os.getpid()}\\n")
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, limit))
"""

_RUN = """
count_primes.scratch = "--scratch" in sys.argv
transformation = count_primes(int(sys.argv[1]))
transformation.compute()
if transformation.exception:
    sys.exit(transformation.exception)
print(json.dumps({
    "pid": os.getpid(),
    "transformation": transformation.transformation_checksum.hex(),
    "result": transformation.result_checksum.hex(),
    "value": None if count_primes.scratch else transformation.run(),
    "seconds": time.perf_counter() - ready,
}))
seamless.close()
"""

COUNT_PRIMES = _HEAD + TRANSFORMATION + _RUN

# Prepended to a program, this limits it to level 1: it stores buffers, but no results.
WITHOUT_DATABASE = """\
from seamless_remote import database_remote
database_remote.DISABLED = True
"""

READ_BUFFER = (
    _HEAD
    + """
value = seamless.Checksum(sys.argv[1]).resolve("mixed")
print(json.dumps({"pid": os.getpid(), "value": value, "seconds": time.perf_counter() - ready}))
seamless.close()
"""
)

SNAPSHOT = """\
import json, sys
import anyio
import seamless, seamless.config
import seamless_remote
from seamless_remote import buffer_remote, database_remote

async def main():
    async with seamless_remote.open_nursery():
        seamless.config.init()
        transformation = seamless.Checksum(sys.argv[1])
        result = await database_remote.get_transformation_result(transformation)
        buffer = await buffer_remote.get_buffer(result)
        note = seamless.Buffer(b"written by a trio program")
        written = await buffer_remote.write_buffer(note.get_checksum(), note)
        snapshot = seamless_remote.current_nursery().snapshot()
        print(json.dumps({
            "value": buffer.get_value("mixed"),
            "written": written,
            "snapshot": snapshot.as_dict(),
        }))

anyio.run(main, backend="trio")
seamless.close()
"""

FAIL = (
    _HEAD
    + """
@delayed
def divide(numerator, denominator):
    import os
    with open(os.environ["DEMO_JOURNAL"], "a") as journal:
        journal.write(f"divide {os.getpid()}\\n")
    return numerator / denominator

transformation = divide(1, 0)
transformation.compute()
print(json.dumps({"pid": os.getpid(), "error": str(transformation.exception)}))
seamless.close()
"""
)

CANCEL = (
    _HEAD
    + """
import asyncio
from pathlib import Path
from seamless_remote import database_remote, jobserver_remote

@delayed
def sleep(seconds):
    import os, time
    with open(os.environ["DEMO_JOURNAL"], "a") as journal:
        journal.write(f"sleep {os.getpid()}\\n")
    time.sleep(seconds)
    with open(os.environ["DEMO_JOURNAL"], "a") as journal:
        journal.write(f"awake {os.getpid()}\\n")
    return seconds

async def journal_has(word):
    for _ in range(600):
        if word in Path(os.environ["DEMO_JOURNAL"]).read_text():
            return
        await asyncio.sleep(0.05)
    sys.exit(f"no {word!r} in the journal")

async def main():
    transformation = sleep(2)
    checksum = await transformation.construction()
    transformation.start()
    await journal_has("sleep")
    cancel_begin = time.perf_counter()
    await transformation.cancel_async()
    seconds = time.perf_counter() - cancel_begin
    await journal_has("awake")
    await asyncio.sleep(0.5)
    status = await jobserver_remote.transformation_status_async(checksum)
    late = await database_remote.get_transformation_result(checksum)
    print(json.dumps({
        "pid": os.getpid(),
        "seconds": seconds,
        "exception": str(transformation.exception),
        "status": status,
        "late_result": None if late is None else late.hex(),
    }))

asyncio.run(main())
seamless.close()
"""
)

NEST = (
    _HEAD
    + """
@delayed
def count_primes_in_parts(limit, parts):
    import os
    from seamless.transformer import direct

    @direct
    def count_part(begin, end):
        import os
        with open(os.environ["DEMO_JOURNAL"], "a") as journal:
            journal.write(f"count_part {os.getpid()}\\n")
        candidates = range(max(begin, 2), end)
        return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in candidates)

    with open(os.environ["DEMO_JOURNAL"], "a") as journal:
        journal.write(f"count_primes_in_parts {os.getpid()}\\n")
    edges = [limit * part // parts for part in range(parts + 1)]
    return sum(count_part(begin, end) for begin, end in zip(edges, edges[1:]))

transformation = count_primes_in_parts(int(sys.argv[1]), int(sys.argv[2]))
transformation.compute()
if transformation.exception:
    sys.exit(transformation.exception)
print(json.dumps({
    "pid": os.getpid(),
    "value": transformation.run(),
    "seconds": time.perf_counter() - ready,
}))
seamless.close()
"""
)
