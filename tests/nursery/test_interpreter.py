"""Fork and interpreter exit: nothing is shared with a parent, and nothing is said at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

PRELUDE = """
import anyio, asyncio, gc, logging, os, sys, threading, traceback
from seamless_remote import Settings
from seamless_remote.nursery import process
from seamless_remote.nursery.calling import call, call_blocking
from seamless_remote.nursery.hosted_thread import THREAD_NAME

# In its debug mode asyncio tells of every callback that takes long: a busy machine's fault.
logging.getLogger("asyncio").setLevel(logging.ERROR)

async def answer(this):
    await anyio.sleep(0)
    return "here"

async def use_executor(this):
    return await asyncio.get_running_loop().run_in_executor(None, os.getpid)

def ask():
    assert call_blocking("a test", answer) == "here"

def hosted_threads():
    return [each.name for each in threading.enumerate()].count(THREAD_NAME)

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


# Exit.


def test_exit_without_a_close_is_quiet(interpreter: Interpreter) -> None:
    script = PRELUDE + "ask(); assert hosted_threads() == 1; print('done')"
    assert interpreter(script) == "done\n"


def test_exit_after_a_call_has_used_its_executor_is_quiet(interpreter: Interpreter) -> None:
    script = PRELUDE + "call_blocking('a test', use_executor); print('done')"
    assert interpreter(script) == "done\n"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_exit_during_the_call_of_a_daemon_thread_is_quiet(
    interpreter: Interpreter, backend: str
) -> None:
    script = (
        PRELUDE
        + f"""
begun = threading.Event()
async def long(this):
    begun.set()
    await anyio.sleep_forever()
def caller():
    try:
        anyio.run(call, "a test", long, backend={backend!r})
    except ConnectionError:
        pass
process.this_process().settings = Settings(grace_period=0.1)
threading.Thread(target=caller, daemon=True).start()
begun.wait()
print('done')
"""
    )
    assert interpreter(script) == "done\n"


def test_exit_with_calls_in_loops_that_have_stopped_or_ended_waits_for_nothing(
    interpreter: Interpreter,
) -> None:
    script = (
        PRELUDE
        + """
import atexit
process.this_process().settings = Settings(grace_period=3600)
async def never(this):
    await asyncio.get_running_loop().create_future()
async def begin():
    task = asyncio.ensure_future(call("a test", never))
    task._log_destroy_pending = False
    await asyncio.sleep(0)
    return task
stopped, closed = asyncio.new_event_loop(), asyncio.new_event_loop()
kept = [stopped.run_until_complete(begin()), closed.run_until_complete(begin())]
closed.close()
# Hooks run in the reverse order of their registration: the package's own comes first.
atexit.unregister(process._at_exit)
atexit.register(stopped.close)
atexit.register(process._at_exit)
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
    ask()
    assert hosted_threads() == 0
    print('late')
# Run after the package's own hook: hooks run in the reverse order of their registration.
atexit.unregister(process._at_exit)
atexit.register(late)
atexit.register(process._at_exit)
ask()
"""
    )
    assert interpreter(script) == "late\n"


def test_a_first_call_while_the_interpreter_exits_is_answered(interpreter: Interpreter) -> None:
    script = PRELUDE + "import atexit; atexit.register(lambda: print(ask()))"
    assert interpreter(script) == "None\n"


def test_exit_in_the_middle_of_a_host_s_block_is_quiet(interpreter: Interpreter) -> None:
    script = (
        PRELUDE
        + """
async def host():
    async with process.open_nursery():
        assert await call("a test", answer) == "here"
        sys.exit(0)
try:
    anyio.run(host)
finally:
    print('done')
"""
    )
    assert interpreter(script) == "done\n"


# Fork.


def test_a_forked_child_starts_from_nothing_and_the_parent_goes_on(
    interpreter: Interpreter,
) -> None:
    script = (
        PRELUDE
        + """
ask()
first = process.current_nursery()
def child():
    assert process.current_nursery() is None
    assert hosted_threads() == 0
    gc.collect()
    ask()
    assert hosted_threads() == 1
    process.close()
    process.close()
for _ in range(3):
    in_child(child)
ask()
assert process.current_nursery() is first
print('done')
"""
    )
    assert interpreter(script, *FORKING) == "done\n"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_child_forked_inside_a_host_and_inside_a_call_starts_from_nothing(
    interpreter: Interpreter, backend: str
) -> None:
    script = (
        PRELUDE
        + f"""
def child():
    here = process.this_process()
    assert process.current_nursery() is None
    assert here.calls.under_way() == []
    assert here.limiter.unused
    assert here.limiter.snapshot().bound == 30
    assert not here.hosted and not here.workers
    ask()
    process.close()
async def forking(this):
    parent = process.this_process()
    share = parent.limiter.take_now(this.loop)
    assert parent.limiter.snapshot().in_flight == 1
    in_child(child)
    parent.limiter.give_back(share)
    assert len(parent.calls.under_way()) == 1
async def host():
    async with process.open_nursery(Settings(database_max_inflight=3)) as nursery:
        in_child(child)
        await call("a test", forking)
        assert process.current_nursery() is nursery
        assert await call("a test", answer) == "here"
anyio.run(host, backend={backend!r})
print('done')
"""
    )
    assert interpreter(script, *FORKING) == "done\n"


def test_services_go_on_in_a_child_with_its_first_call(interpreter: Interpreter) -> None:
    script = (
        PRELUDE
        + """
from seamless_remote.nursery.service import BackgroundTask, Service
class Noting(Service):
    def __init__(self):
        super().__init__("noting")
        self.begun = threading.Event()
    def tasks(self):
        return [BackgroundTask("a task", self.run, print)]
    async def run(self, this):
        self.begun.set()
        await anyio.sleep_forever()
    def in_flight(self):
        return 0
    def release(self, remaining):
        pass
    def client_snapshots(self):
        return ()
service = Noting()
process.install(service)
service.begun.wait()
def child():
    service.begun.clear()
    ask()
    service.begun.wait()
    process.close()
in_child(child)
print('done')
"""
    )
    assert interpreter(script, *FORKING) == "done\n"


@pytest.mark.parametrize(
    "lock", ["process.this_process().lock", "process.this_process().limiter._lock"]
)
def test_a_fork_while_another_thread_holds_a_lock_leaves_the_child_free(
    interpreter: Interpreter, lock: str
) -> None:
    script = (
        PRELUDE
        + f"""
held, release = threading.Event(), threading.Event()
def hold():
    with {lock}:
        held.set()
        release.wait()
async def limited(this):
    limiter = process.this_process().limiter
    share = await limiter.take(this.loop)
    limiter.give_back(share)
holder = threading.Thread(target=hold)
holder.start()
held.wait()
in_child(lambda: (call_blocking("a test", limited), process.close()))
release.set()
holder.join()
print('done')
"""
    )
    assert interpreter(script, *FORKING) == "done\n"


# Ctrl-C.


def test_an_interrupted_blocking_call_cancels_its_call(interpreter: Interpreter) -> None:
    script = (
        PRELUDE
        + """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
ended = threading.Event()
async def long(this):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        await anyio.sleep_forever()
    finally:
        ended.set()
async def inside():
    call_blocking("a test", long)
for way in (lambda: call_blocking("a test", long), lambda: anyio.run(inside, backend='trio')):
    ended.clear()
    try:
        way()
    except KeyboardInterrupt:
        ended.wait()
        print('interrupted')
"""
    )
    assert interpreter(script) == "interrupted\ninterrupted\n"
