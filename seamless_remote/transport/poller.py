"""Readiness of many sockets, and their deadlines, for one asyncio loop.

To register a socket with asyncio's selector and take it out again costs 10 us of Python, a fifth of
a look-up; to arm it in an epoll object of our own costs 1. A socket stays there, disarmed, when its
exchange is over, and goes to another loop without a word to this one. One timer of the loop serves
all deadlines.
"""

from __future__ import annotations

import asyncio
import enum
import math
import os
import select
import socket
import weakref
from abc import ABC, abstractmethod
from typing import Protocol


class Received(enum.Enum):
    """What a step of receiving came to."""

    NOTHING = enum.auto()
    """No bytes have come: wait for more."""
    SOME = enum.auto()
    """Some bytes have come, and not enough: there may be more right now."""
    ENOUGH = enum.auto()


class Watched(Protocol):
    """Who waits for a socket. All is called, and read, in the loop."""

    sock: socket.socket

    @property
    def descriptor(self) -> int: ...

    @property
    def due(self) -> float:
        """When the wait is over at the latest, in the loop's time; infinity: never. It may grow."""

    def ready(self) -> Received:
        """There may be something to receive, or room to send. ENOUGH: it is watched no more."""

    def overdue(self) -> None:
        """Its time is over. It is watched no more."""


class Poller(ABC):
    """Watches sockets for one loop, in whose thread it is used."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._watched: dict[int, Watched] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next_look = math.inf

    def watch(self, watched: Watched, *, writing: bool = False) -> None:
        """Tell once when the socket can be read from, or (if `writing`) also written to."""
        self._watched[watched.descriptor] = watched
        self._arm(watched, writing)
        if watched.due < self._next_look:
            self._look_at(watched.due)

    def forget(self, descriptor: int) -> None:
        """Tell nothing of this socket any more. Before it is closed; also from a destructor."""
        self._watched.pop(descriptor, None)

    @abstractmethod
    def _arm(self, watched: Watched, writing: bool) -> None:
        """Have `ready` called when the socket is."""

    def _look_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next_look = when
        # Weakly: a poller, and its descriptor, go with their loop. In a circle with its timer it
        # would wait for the collector.
        self._timer = self.loop.call_at(when, _look, weakref.ref(self))

    def look(self) -> None:
        """Tell those whose time is over, and look again when the next one's is."""
        self._timer, self._next_look = None, math.inf
        now, following = self.loop.time(), math.inf
        # A list, for a destructor may have a socket forgotten at any moment.
        for watched in list(self._watched.values()):
            if watched.due <= now:
                self.forget(watched.descriptor)
                watched.overdue()
            else:
                following = min(following, watched.due)
        if following < math.inf:
            self._look_at(following)


def _look(reference: weakref.ref[Poller]) -> None:
    poller = reference()
    if poller is not None:
        poller.look()


class EpollPoller(Poller):
    """With Linux's epoll. Each arming brings one report (EPOLLONESHOT).

    What is watched is armed. What is not watched any more may be armed still, and be reported to
    nobody.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        # Closed by its own destructor.
        self._epoll = select.epoll()
        self._events: dict[int, int] = {}
        self._armed: weakref.ref[socket.socket] | None = None
        """One whose report was not fetched, so that it is armed still. Fetching any clears this."""
        loop.add_reader(self._epoll.fileno(), self._report)

    def _arm(self, watched: Watched, writing: bool) -> None:
        if self._armed is not None and self._armed() is watched.sock and not writing:
            return
        descriptor = watched.descriptor
        events = select.EPOLLIN | select.EPOLLONESHOT | (select.EPOLLOUT if writing else 0)
        # A closed socket has left the epoll object, and the next one may have its number.
        first, second = self._epoll.modify, self._epoll.register
        if descriptor not in self._events:
            first, second = second, first
        self._events[descriptor] = events
        try:
            first(descriptor, events)
        except (FileExistsError, FileNotFoundError):
            second(descriptor, events)

    def _report(self) -> None:
        if len(self._watched) == 1 and self._report_single():
            return
        self._armed = None
        try:
            self._report_all()
        except BaseException:
            # A KeyboardInterrupt: of those that were reported, some were not told, and will not be
            # reported again.
            for watched in list(self._watched.values()):
                self._arm(watched, bool(self._events.get(watched.descriptor, 0) & select.EPOLLOUT))
            raise

    # In a frame of its own: at the end of a loop's turn, a KeyboardInterrupt may pass a `try` of
    # the same frame by (python/cpython#130279).
    def _report_all(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            watched = self._watched.get(descriptor)
            if watched is None:
                continue
            if watched.ready() is Received.ENOUGH:
                self.forget(descriptor)
            else:
                self._arm(watched, writing=False)

    def _report_single(self) -> bool:
        """Tell the only one that is watched, whose report it must be; False: it was not.

        The report is not fetched, so the socket stays armed. That saves two system calls of six,
        and with each a moment in which another thread may take Python's lock: one that computes
        keeps it for 5 ms. The kernel drops the report once there is nothing left to receive.
        """
        # A destructor may have it forgotten at any moment.
        descriptor, watched = next(iter(self._watched.items()), (0, None))
        # Whether it can send is not seen without the report.
        if watched is None or self._events[descriptor] & select.EPOLLOUT:
            return False
        received = watched.ready()
        if received is Received.NOTHING:
            return False
        if received is Received.ENOUGH:
            self.forget(descriptor)
        self._armed = weakref.ref(watched.sock)
        return True


class LoopPoller(Poller):
    """With the loop's own readers and writers, on systems without epoll."""

    def _arm(self, watched: Watched, writing: bool) -> None:
        self.loop.add_reader(watched.descriptor, self._tell, watched.descriptor)
        if writing:
            self.loop.add_writer(watched.descriptor, self._tell, watched.descriptor)

    def forget(self, descriptor: int) -> None:
        super().forget(descriptor)
        if not self.loop.is_closed():
            self.loop.remove_reader(descriptor)
            self.loop.remove_writer(descriptor)

    def _tell(self, descriptor: int) -> None:
        watched = self._watched.get(descriptor)
        if watched is not None and watched.ready() is Received.ENOUGH:
            self.forget(descriptor)


# Weakly: a poller is kept by its loop, which calls it, and by those who wait. They refer to the
# loop, so a strong reference here would keep a loop that is dropped with its tasks.
_pollers: dict[int, weakref.ref[Poller]] = {}


def poller_of(loop: asyncio.AbstractEventLoop) -> Poller:
    """The poller of a loop, which runs this code."""
    key = id(loop)
    reference = _pollers.get(key)
    known = None if reference is None else reference()
    if known is not None and known.loop is loop:  # ids are used again
        return known

    def forget(reference: weakref.ref[Poller]) -> None:
        if _pollers.get(key) is reference:
            del _pollers[key]

    poller = EpollPoller(loop) if hasattr(select, "epoll") else LoopPoller(loop)
    _pollers[key] = weakref.ref(poller, forget)
    return poller


# The child of a fork shares its parent's epoll objects; it must not arm anything there.
os.register_at_fork(after_in_child=_pollers.clear)
