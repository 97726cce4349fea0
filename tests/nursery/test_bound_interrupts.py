"""A KeyboardInterrupt at any moment inside the bound: the lock is free, and others are served.

What the interrupted thread was about to do may be left undone: a place is lost, until its loop
ends. That is all.
"""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import pytest
from loops import KINDS, LoopThread
from signals import LONG

from seamless_remote.nursery import bound as bound_module
from seamless_remote.nursery import waiter as waiter_module
from seamless_remote.nursery.bound import Bound, Share

Start = Callable[..., Future[Any]]
Loops = Callable[[str], LoopThread]


class Loop:
    """What a bound sees of a loop."""


@contextmanager
def interrupted(number: int) -> Iterator[None]:
    """A KeyboardInterrupt comes when the code of the bound looks for signals for the nth time.

    Python does that when a function begins, after each call, and where a loop jumps back.
    """
    looks, here = 0, threading.get_ident()
    last: dict[CodeType, str] = {}

    def before(code: CodeType, offset: int) -> None:
        """Called before each instruction."""
        nonlocal looks
        if code.co_filename == bound_module.__file__ and threading.get_ident() == here:
            name = dis.opname[code.co_code[offset]]
            former, last[code] = last.get(code, ""), name
            if name.startswith("JUMP_BACKWARD") or former.startswith(("CALL", "RESUME")):
                looks += 1
                if looks == number:
                    raise KeyboardInterrupt

    with (monitored if sys.version_info >= (3, 12) else traced)(before):
        yield


@contextmanager
def traced(before: Callable[[CodeType, int], None]) -> Iterator[None]:
    def trace(frame: FrameType, event: str, argument: object) -> Any:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode":
            before(frame.f_code, frame.f_lasti)
        return trace

    former = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(former)


@contextmanager
def monitored(before: Callable[[CodeType, int], None]) -> Iterator[None]:
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined]
    tool, event = monitoring.DEBUGGER_ID, monitoring.events.INSTRUCTION
    codes = [
        each.__code__ for kind in (Bound, Share) for each in vars(kind).values() if callable(each)
    ]
    monitoring.use_tool_id(tool, "interrupts")
    monitoring.register_callback(tool, event, before)
    for code in codes:
        monitoring.set_local_events(tool, code, event)
    try:
        yield
    finally:
        for code in codes:
            monitoring.set_local_events(tool, code, 0)
        monitoring.free_tool_id(tool)


class Saturated:
    """A bound whose three places are held in one loop, where two more wait."""

    def __init__(self, thread: LoopThread) -> None:
        self.bound = Bound(3)
        self.shares: list[Share] = [thread.run(self.bound.take, thread.loop) for _ in range(3)]
        self.waiting: list[Future[Share]] = []
        for _ in range(2):
            self.waiting.append(thread.start(self.bound.take, thread.loop))
            thread.settle()
        assert self.bound.snapshot().waiting == 2


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 looks elsewhere")
@pytest.mark.parametrize("act", ["give back", "take now", "resize"])
def test_wherever_an_interrupt_comes_the_lock_is_free_and_those_who_wait_are_served(
    loop_threads: Loops, threaded: Start, act: str
) -> None:
    thread = loop_threads("asyncio")
    number, came = 0, True
    while came:
        number, came = number + 1, False
        it = Saturated(thread)
        loop = Loop()
        acts: dict[str, Callable[[], object]] = {
            "give back": lambda it=it: it.bound.give_back(it.shares[0]),
            "take now": lambda it=it, loop=loop: it.bound.take_now(loop),
            "resize": lambda it=it: it.bound.resize(4),
        }
        try:
            with interrupted(number):
                acts[act]()
        except KeyboardInterrupt:
            came = True
        # From another thread, for which a lock that was left held would never be free.
        for share in it.shares[1:] if act == "give back" else it.shares:
            threaded(it.bound.give_back, share).result(LONG)
        for each in it.waiting:
            threaded(it.bound.give_back, each.result(LONG)).result(LONG)
        # An interrupted act may not have begun, or its outcome may be lost: of a place, or of one
        # that was given back.
        assert it.bound.snapshot().waiting == 0
        assert it.bound.snapshot().in_flight <= (act != "resize")
    assert number > 5


def test_an_interrupt_right_after_the_lock_was_taken_leaves_it_free(
    loop_threads: Loops, threaded: Start
) -> None:
    it = Saturated(loop_threads("trio"))
    bound = it.bound

    class Interrupted:
        """A lock during whose `acquire` Ctrl-C is pressed."""

        def __init__(self, lock: Any) -> None:
            self.lock = lock

        def __getattr__(self, name: str) -> Any:
            return getattr(self.lock, name)

        def acquire(self, **options: Any) -> None:
            self.lock.acquire(**options)
            raise KeyboardInterrupt

    lock = bound._lock
    bound._lock = Interrupted(lock)
    with pytest.raises(KeyboardInterrupt):
        bound.give_back(it.shares[0])
    bound._lock = lock
    threaded(bound.resize, 3).result(LONG)
    it.waiting[0].result(LONG)
    assert not it.waiting[1].done()


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_before_a_wake_up_in_another_loop_delays_it_and_does_not_lose_it(
    monkeypatch: pytest.MonkeyPatch, loop_threads: Loops, kind: str
) -> None:
    it = Saturated(loop_threads(kind))

    def interrupted(self: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        for each in (waiter_module._AsyncioWaiter, waiter_module._TrioWaiter):
            patch.setattr(each, "wake", interrupted)
        with pytest.raises(KeyboardInterrupt):
            it.bound.give_back(it.shares[0])
    it.bound.resize(3)
    it.waiting[0].result(LONG)
    assert not it.waiting[1].done()
