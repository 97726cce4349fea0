"""A TCP proxy before a real service that does harm on demand, byte by byte, on real sockets.

`fault_proxy.FaultProxy` passes bytes on in both directions, a thread a connection, until a `Fault`
is put in force, `refuse` closes its door, or an answer of the test's own is played instead of the
service's (`play`; see `played_answers`).
"""

from __future__ import annotations

import contextlib
import enum
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
from played_answers import End, PlayedAnswer, play

TICK = 0.02
PATIENCE = 10.0
PIECE = 65536


class Harm(enum.Enum):
    """What happens to the bytes of one direction from byte `at` on."""

    DELAY = enum.auto()
    CUT = enum.auto()
    STALL = enum.auto()
    RESET = enum.auto()
    THROTTLE = enum.auto()
    CORRUPT = enum.auto()


class Toward(enum.Enum):
    CLIENT = enum.auto()
    SERVICE = enum.auto()


@dataclass(frozen=True, eq=False)
class Fault:
    """A harm to bytes that go `toward` one side, after `at` of them have passed.

    Bytes are counted on each connection from the moment on at which the fault is put in force. It
    strikes so many `times`, then everything passes again. `seconds` is the pause of DELAY (once)
    and of THROTTLE (after every `step` bytes); STALL lasts until the fault is lifted.
    """

    harm: Harm
    toward: Toward = Toward.CLIENT
    at: int = 0
    times: int = 1
    seconds: float = 0.05
    step: int = 1000


class FaultProxy:
    """Stands before the service at `port`; threads may put faults in force while it runs."""

    def __init__(self, port: int) -> None:
        self.service_port = port
        self.closing = False
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self._strikes_left = 0
        self._answer: tuple[PlayedAnswer, re.Pattern[bytes]] | None = None
        self._connections: set[_Connection] = set()
        self.accepted = 0
        self.passed_to_clients = 0
        self._lines: list[bytes] = []
        self._ranges: list[bytes] = []
        self._bound = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._address = self._bound.getsockname()
        self.url = f"http://127.0.0.1:{self._address[1]}"
        self._threads: list[threading.Thread] = []
        self._open_door()

    @property
    def fault(self) -> Fault | None:
        """What is in force."""
        return self._fault

    @property
    def answer(self) -> tuple[PlayedAnswer, re.Pattern[bytes]] | None:
        """What is answered instead of the service, and to which requests."""
        return self._answer

    def put(self, fault: Fault | None) -> None:
        """Put a fault in force, in place of another one; None lifts it."""
        with self._lock:
            self._fault = fault
            self._strikes_left = 0 if fault is None else fault.times

    def note(self, data: bytes) -> None:
        """A client has sent this: a request, or a part of one."""
        head = data.split(b"\r\n\r\n", 1)[0]
        self._lines.append(head.split(b"\r\n", 1)[0])
        self._ranges += re.findall(rb"\r\nRange: *(.*)", head)

    def count(self, sent: int) -> None:
        """So many bytes more went to a client from the service."""
        with self._lock:
            self.passed_to_clients += sent

    def requests(self) -> list[bytes]:
        """The first line of whatever clients sent, but for the pings of keepalive."""
        return [line for line in self._lines if b"/healthcheck" not in line]

    def pings(self) -> list[bytes]:
        """The first lines of the healthchecks."""
        return [line for line in self._lines if b"/healthcheck" in line]

    def ranges(self) -> list[bytes]:
        """The parts that clients asked for, of all requests that named one."""
        return self._ranges

    def claim(self, fault: Fault) -> bool:
        """Whether this fault may strike now: it is in force, and has not done so often enough."""
        with self._lock:
            if self._fault is not fault or not self._strikes_left:
                return False
            self._strikes_left -= 1
            return True

    @contextlib.contextmanager
    def play(self, answer: PlayedAnswer, only: str = "") -> Iterator[None]:
        """Answer requests, all or those whose first line matches `only`, by `answer`."""
        self._answer = (answer, re.compile(only.encode()))
        try:
            yield
        finally:
            self._answer = None

    def refuse(self) -> None:
        """Let nobody in, and end every connection: connecting is refused until `heal`."""
        if self._bound.fileno() >= 0:
            self._bound.shutdown(socket.SHUT_RDWR)
            self._bound.close()
        for connection in list(self._connections):
            connection.ended = True

    def heal(self) -> None:
        """Lift every fault."""
        self.put(None)
        if self._bound.fileno() < 0:
            self._bound = socket.create_server(self._address, backlog=256)
            self._open_door()

    def misled(self) -> int:
        """How many connections are open that had an answer after which they must be closed."""
        return sum(each.misled for each in list(self._connections))

    def clients(self) -> list[str]:
        """The connections to the proxy that this process holds, its own ends of them aside."""
        return [
            f"{each.status} {each.laddr.port} to {self.url}"
            for each in psutil.Process().net_connections(kind="tcp4")
            if each.raddr == self._address
        ]

    def close(self) -> None:
        self.closing = True
        self.put(None)
        self.refuse()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def _open_door(self) -> None:
        self._run(self._accept, self._bound)

    def _run(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args)  # type: ignore[arg-type]
        self._threads = [each for each in self._threads if each.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _accept(self, door: socket.socket) -> None:
        while True:
            try:
                client, _ = door.accept()
            except OSError:
                return
            connection = _Connection(self, client)
            with self._lock:
                self.accepted += 1
                self._connections.add(connection)
            self._run(self._serve, connection)

    def _serve(self, connection: _Connection) -> None:
        try:
            # Either side may go at any time.
            with contextlib.suppress(OSError):
                connection.run()
        finally:
            connection.close()
            with self._lock:
                self._connections.discard(connection)


@dataclass(eq=False)
class _Flow:
    """One direction of a connection: what is to be passed on, and when."""

    toward: Toward
    source: socket.socket
    sink: socket.socket
    pending: bytes = b""
    held: bytes = b""
    stalled_by: Fault | None = None
    not_before: float = 0.0
    pace: tuple[int, float] | None = None
    end: End | None = None
    fault: Fault | None = None
    passed: int = 0


@dataclass(eq=False)
class _Connection:
    """One client's connection, and the one to the service that belongs to it."""

    proxy: FaultProxy
    client: socket.socket
    service: socket.socket | None = None
    ended: bool = False
    misled: bool = False
    flows: list[_Flow] = field(default_factory=list)

    def run(self) -> None:
        """Pass bytes on until one side ends the connection, or a fault does."""
        self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while not self.ended and not self.proxy.closing:
            poller, quick = self._poller()
            for number, event in poller.poll(1 if quick else TICK * 1000):
                if number == self.client.fileno() and event & (select.POLLRDHUP | select.POLLERR):
                    return
                if number == self.client.fileno() and not self.flows:
                    self._begin()
                for flow in self.flows:
                    if number == flow.source.fileno() and not self._busy(flow):
                        self._receive(flow)
            for flow in self.flows:
                self._send(flow)

    def close(self) -> None:
        self.client.close()
        if self.service is not None:
            self.service.close()

    def _poller(self) -> tuple[select.poll, bool]:
        poller = select.poll()
        poller.register(self.client, select.POLLRDHUP)
        if not self.flows:
            poller.register(self.client, select.POLLRDHUP | select.POLLIN)
        quick = False
        for flow in self.flows:
            if not self._busy(flow):
                poller.register(flow.source, select.POLLRDHUP | select.POLLIN)
            quick = quick or bool(flow.pending)
        return poller, quick

    @staticmethod
    def _busy(flow: _Flow) -> bool:
        return bool(flow.pending or flow.stalled_by or flow.end)

    def _begin(self) -> None:
        """The first request has come: play an answer to it, or pass it on."""
        if self._is_played():
            return
        self.service = socket.create_connection(("127.0.0.1", self.proxy.service_port))
        for sock in (self.client, self.service):
            sock.setblocking(False)
        self.flows = [
            _Flow(Toward.SERVICE, self.client, self.service),
            _Flow(Toward.CLIENT, self.service, self.client),
        ]

    def _is_played(self) -> bool:
        if self.proxy.answer is None:
            return False
        answer, only = self.proxy.answer
        request = self.client.recv(PIECE, socket.MSG_PEEK)
        if not only.search(request.split(b"\r\n", 1)[0]):
            return False
        self.proxy.note(request)
        self.misled = answer.status is None
        self.client.settimeout(PATIENCE)
        end = play(self.client, answer)
        self.client.setblocking(False)
        if end is not End.STAY:
            self._end(end)
        return True

    def _receive(self, flow: _Flow) -> None:
        if flow.toward is Toward.SERVICE and self._is_played():
            return
        data = flow.source.recv(PIECE)
        if not data:
            flow.end = End.CLOSE
            return
        if flow.toward is Toward.SERVICE:
            self.proxy.note(data)
        fault = self.proxy.fault
        if fault is not flow.fault:
            flow.fault, flow.passed, flow.pace = fault, 0, None
        before, flow.passed = flow.passed, flow.passed + len(data)
        flow.pending = data
        reached = fault is not None and fault.toward is flow.toward and flow.passed > fault.at
        if fault is not None and reached and self.proxy.claim(fault):
            self._strike(flow, fault, max(0, fault.at - before))

    @staticmethod
    def _strike(flow: _Flow, fault: Fault, at: int) -> None:
        before, rest = flow.pending[:at], flow.pending[at:]
        if fault.harm is Harm.DELAY:
            flow.not_before = time.monotonic() + fault.seconds
        elif fault.harm is Harm.THROTTLE:
            flow.pace = (fault.step, fault.seconds)
        elif fault.harm is Harm.CORRUPT:
            flow.pending = before + bytes([rest[0] ^ 0x80]) + rest[1:]
        else:
            flow.pending = before
            if fault.harm is Harm.STALL:
                flow.stalled_by, flow.held = fault, rest
            else:
                flow.end = End.RESET if fault.harm is Harm.RESET else End.CLOSE

    def _send(self, flow: _Flow) -> None:
        now = time.monotonic()
        if flow.pending and now >= flow.not_before:
            step, pause = flow.pace or (PIECE, 0.0)
            with contextlib.suppress(BlockingIOError):
                sent = flow.sink.send(flow.pending[:step])
                flow.pending = flow.pending[sent:]
                if flow.toward is Toward.CLIENT:
                    self.proxy.count(sent)
                flow.not_before = now + pause
        if flow.pending:
            return
        if flow.end is not None:
            self._end(flow.end)
        elif flow.stalled_by is not None and self.proxy.fault is not flow.stalled_by:
            flow.pending, flow.held, flow.stalled_by = flow.held, b"", None

    def _end(self, end: End) -> None:
        self.ended = True
        if end is End.RESET:
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
