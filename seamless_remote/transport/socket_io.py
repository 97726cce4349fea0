"""The socket under a connection: bytes in and out, for a bounded time of silence, until it ends."""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import weakref
from collections.abc import Awaitable
from dataclasses import dataclass

import anyio
from anyio import wait_writable

from .readiness import Step, reading_of
from .silence import SilenceWatch, loop_clock

_live: weakref.WeakSet[Wire] = weakref.WeakSet()


class WireBroken(Exception):
    """The wire ended: reset, timed out, or ended on this side. Never seen outside of a connection.

    No OSError, which may as well come from a request's body.
    """


@dataclass(slots=True)
class Traffic:
    """Bytes that went over the wire, heads included."""

    sent: int = 0
    received: int = 0


class Wire:
    """A connected, non-blocking socket, and the time that the other side may take.

    `timeout` is in seconds (None: no limit); `ended` says that it was ended by `end`, and
    `timed_out` that silence was the reason. `send`, `receive` and `receive_into` never wait.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_poll",
        "_reading",
        "_scope",
        "_sock",
        "_traffic",
        "_waiting",
        "_watch",
        "ended",
        "timed_out",
        "timeout",
    )

    def __init__(self, sock: socket.socket, traffic: Traffic, watch: SilenceWatch) -> None:
        self._sock = sock
        self._reading = reading_of(sock)
        self._clock = loop_clock()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._traffic = traffic
        self._watch = watch
        self._scope: anyio.CancelScope | None = None
        self._waiting = 0
        self.timeout: float | None = None
        self.ended = False
        self.timed_out = False
        _live.add(self)

    def __del__(self) -> None:
        # At interpreter exit nobody is left to close what is idle.
        self.close()

    def is_stale(self) -> bool:
        """Whether the server closed an idle wire, or spoke on it. One system call."""
        return bool(self._poll.poll(0))

    def send(self, data: bytes | memoryview) -> int:
        """Hand bytes to the kernel; how many of them it took."""
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise WireBroken(exc.strerror) from exc
        self._traffic.sent += sent
        return sent

    def receive(self, size: int) -> bytes | None:
        """What has come, at most `size` bytes: b"" at the end of the stream, None if nothing."""
        try:
            data = self._sock.recv(size)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise WireBroken(exc.strerror) from exc
        self._traffic.received += len(data)
        return data

    def receive_into(self, room: memoryview) -> int | None:
        """Put what has come in `room`, which is not empty: how much, as `receive` says it."""
        try:
            count = self._sock.recv_into(room)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise WireBroken(exc.strerror) from exc
        self._traffic.received += count
        return count

    async def receive_until(self, step: Step) -> None:
        """Call `step`, which is to `receive`, whenever something has come, until it returns True.

        What it raises is raised here.
        """
        if self.ended:
            raise WireBroken
        self._waiting += 1
        try:
            await self._reading.until(step)
        finally:
            self._waiting -= 1

    async def writable(self) -> None:
        """Wait until the kernel takes more."""
        if self.ended:
            raise WireBroken
        self._waiting += 1
        try:
            await wait_writable(self._sock)
        finally:
            self._waiting -= 1

    async def within_timeout(self, step: Awaitable[None]) -> None:
        """Run `step`, each part of which, up to the next `note_progress`, has the timeout."""
        timeout = self.timeout
        if timeout is None:
            await step
        elif self._watch.running:
            self._watch.expect(self, self._clock() + timeout)
            try:
                await step
            finally:
                self._watch.forget(self)
        else:
            with anyio.move_on_after(timeout) as scope:
                self._scope = scope
                await step
            self._scope = None
            if scope.cancelled_caught:
                self.timed_out = True
                raise WireBroken

    def note_progress(self) -> None:
        """The other side has moved: its time starts again."""
        if self.timeout is not None:
            self._allow(self.timeout)

    def pause_timeout(self) -> None:
        """Until the next `note_progress` it is not the other side that is waited for."""
        if self.timeout is not None:
            self._allow(math.inf)

    def _allow(self, seconds: float) -> None:
        deadline = self._clock() + seconds
        if self._scope is not None:
            self._scope.deadline = deadline
        else:
            self._watch.expect(self, deadline)

    def close(self) -> None:
        """Close the socket, now; for the task that uses it, or when none does."""
        self._reading.close()
        self._sock.close()

    def end(self) -> None:
        """End the wire from another task of its loop: who waits on it gets WireBroken."""
        self.ended = True
        if not self._waiting:
            self.close()
            return
        # Closing a socket that is waited on is undefined; after a shutdown the waits return. They
        # do so as well where it fails, because the other side has gone already.
        self.shut_down()

    def shut_down(self) -> None:
        """End it for both sides, from any thread; whoever waits on it sees a broken connection."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def time_out(self) -> None:
        """End it for the other side's silence (see `SilenceWatch`)."""
        self.timed_out = True
        self.end()

    def become(self, descriptor: int) -> None:
        """Put a copy of `descriptor` in the place of the socket (see `abandon_after_fork`)."""
        self.ended = True
        if self._sock.fileno() >= 0:
            os.dup2(descriptor, self._sock.fileno(), inheritable=False)


def abandon_after_fork() -> None:
    """In the child of a fork: cut every inherited connection off from the parent's.

    Each descriptor then is one of the null device, which may be read, written, shut down and
    closed without the parent's server taking notice. Call it before any thread is started.
    """
    if not _live:
        return
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for wire in list(_live):
            wire.become(null)
    finally:
        os.close(null)
    _live.clear()
