"""Fork and interpreter exit: nothing is shared with a parent, and nothing is said at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

PRELUDE = """
import anyio, asyncio, gc, os, sys, threading, traceback
from seamless_remote.nursery import process
from seamless_remote import Settings

import logging
# In its debug mode asyncio tells of every callback that takes long: a busy machine's fault.
logging.getLogger("asyncio").setLevel(logging.ERROR)

async def thread(scope):
    await anyio.sleep(0)
    return threading.get_ident()

async def resolve(scope):
    return await asyncio.get_running_loop().run_in_executor(None, os.getpid)

def in_child(function):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
"""

# Python 3.12 and later warn of every fork in a process with threads.
FORKING = () if sys.version_info < (3, 12) else ("-W", "ignore::DeprecationWarning")

Interpreter = Callable[..., str]


def test_exit_without_a_close_is_quiet(interpreter: Interpreter) -> None:
    script = PRELUDE + "process.call_blocking(thread); print('done')"
    assert interpreter(script) == "done\n"


def test_exit_after_the_nursery_has_used_its_executor_is_quiet(interpreter: Interpreter) -> None:
    script = PRELUDE + "process.call_blocking(resolve); print('done')"
    assert interpreter(script) == "done\n"


def test_exit_during_the_call_of_a_daemon_thread_is_quiet(interpreter: Interpreter) -> None:
    script = (
        PRELUDE
        + """
begun = threading.Event()
async def long(scope):
    begun.set()
    await anyio.sleep_forever()
def caller():
    try:
        process.call_blocking(long)
    except ConnectionError:
        pass
from seamless_remote.nursery import current
current._process.settings = Settings(grace_period=0.1)
threading.Thread(target=caller, daemon=True).start()
begun.wait()
print('done')
"""
    )
    assert interpreter(script) == "done\n"


def test_a_call_while_the_interpreter_exits_is_answered(interpreter: Interpreter) -> None:
    script = (
        PRELUDE
        + """
import atexit
def late():
    assert process.call_blocking(thread) == threading.get_ident()
    print('late')
import seamless_remote.nursery.current as current
# Run after the package's own hook: hooks run in the reverse order of their registration.
atexit.unregister(current._at_exit)
atexit.register(late)
atexit.register(current._at_exit)
process.call_blocking(thread)
"""
    )
    assert interpreter(script) == "late\n"


def test_a_first_call_while_the_interpreter_exits_is_answered(interpreter: Interpreter) -> None:
    script = (
        PRELUDE
        + """
import atexit
atexit.register(lambda: print(process.call_blocking(thread) > 0))
"""
    )
    assert interpreter(script) == "True\n"


def test_a_forked_child_starts_from_nothing_and_the_parent_goes_on(
    interpreter: Interpreter,
) -> None:
    script = (
        PRELUDE
        + """
first = process.call_blocking(thread)
def child():
    assert process.current_nursery() is None
    gc.collect()
    assert process.call_blocking(thread) in {each.ident for each in threading.enumerate()}
    process.close()
    process.close()
for _ in range(3):
    in_child(child)
assert process.call_blocking(thread) == first
print('done')
"""
    )
    assert interpreter(script, *FORKING) == "done\n"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_child_forked_inside_a_host_starts_from_nothing(
    interpreter: Interpreter, backend: str
) -> None:
    script = (
        PRELUDE
        + f"""
def child():
    assert process.current_nursery() is None
    assert process.call_blocking(thread) in {{each.ident for each in threading.enumerate()}}
    process.close()
async def host():
    async with process.open_nursery() as nursery:
        in_child(child)
        assert process.current_nursery() is nursery
        assert await process.call(thread) == threading.get_ident()
anyio.run(host, backend={backend!r})
print('done')
"""
    )
    assert interpreter(script, *FORKING) == "done\n"


def test_a_fork_while_locks_are_held_leaves_the_child_free(interpreter: Interpreter) -> None:
    script = (
        PRELUDE
        + """
from seamless_remote.nursery import current
held, release = threading.Event(), threading.Event()
def hold():
    with current._process.lock:
        held.set()
        release.wait()
holder = threading.Thread(target=hold)
holder.start()
held.wait()
in_child(lambda: (process.call_blocking(thread), process.close()))
release.set()
holder.join()
print('done')
"""
    )
    assert interpreter(script, *FORKING) == "done\n"


def test_an_interrupted_blocking_call_cancels_its_call(interpreter: Interpreter) -> None:
    script = (
        PRELUDE
        + """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
ended = threading.Event()
async def long(scope):
    os.kill(os.getpid(), signal.SIGINT)
    try:
        await anyio.sleep_forever()
    finally:
        ended.set()
async def inside():
    process.call_blocking(long)
for way in (lambda: process.call_blocking(long), lambda: anyio.run(inside, backend='trio')):
    ended.clear()
    try:
        way()
    except KeyboardInterrupt:
        ended.wait()
        print('interrupted')
"""
    )
    assert interpreter(script) == "interrupted\ninterrupted\n"
