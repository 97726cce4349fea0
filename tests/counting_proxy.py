"""A proxy that stands before a real service, counts what passes, and holds it up on demand."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

PATIENCE = 30.0
PIECE = 65536


class CountingProxy:
    """Passes HTTP/1.1 on to the service at `port`, one thread a connection.

    While `hold()` is in force, requests whose line contains the given text are kept here. With
    `stall_after` set, answers stop after so many bytes of body until `release()`.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._condition = threading.Condition()
        self._held_text: str | None = None
        self._sockets: list[socket.socket] = []
        self.stall_after: int | None = None
        self.requests: list[str] = []
        self.answers: list[tuple[str, int]] = []
        self.accepted = 0
        self.closed = 0
        self.held = 0
        self._carriers: list[tuple[str, int]] = []
        self._in_flight: Counter[str] = Counter()
        self._peaks: Counter[str] = Counter()
        self.body_bytes_received = 0
        self.body_bytes_sent = 0
        self.abandoned = 0
        """Connections that the client closed before its request was answered whole."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def count(self, text: str) -> int:
        """How many requests had this text in their first line."""
        return sum(text in line for line in self.requests)

    def answers_to(self, text: str) -> list[int]:
        """The status of each answer to a request with this text in its first line."""
        return [status for line, status in self.answers if text in line]

    def peak_of(self, text: str) -> int:
        """The most requests with one and the same first line, with this text, at one moment."""
        return max(peak for line, peak in self._peaks.items() if text in line)

    def connections_of(self, text: str) -> int:
        """How many of the connections that are open carried requests with this text."""
        return len({carrier for line, carrier in self._carriers if text in line})

    def methods(self) -> Counter[str]:
        return Counter(line.split()[0] for line in self.requests)

    @contextlib.contextmanager
    def hold(self, text: str = "") -> Iterator[None]:
        """Keep requests here until the block ends."""
        with self._condition:
            self._held_text = text
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        with self._condition:
            self._held_text = self.stall_after = None
            self._condition.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Block until a condition on what this proxy has counted holds."""
        with self._condition:
            if not self._condition.wait_for(condition, PATIENCE):
                raise AssertionError(f"it did not come about; requests: {self.requests}")

    def wait_for_held(self, count: int = 1) -> None:
        """Block until so many requests are being kept here (in this moment)."""
        self.wait_for(lambda: self.held >= count)

    def wait_for_abandoned(self, count: int = 1) -> None:
        """Block until the client has given up so many requests."""
        self.wait_for(lambda: self.abandoned >= count)

    def close(self) -> None:
        self.release()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(PATIENCE)
        for each in list(self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            # A head and its body go out apart: the second would wait for the client's ACK.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._condition:
                self.accepted += 1
            self._sockets.append(client)
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        # The service is connected to only when a request comes: an idle client costs it nothing.
        with client, contextlib.suppress(OSError, EOFError):
            reader = _Reader(client)
            head = reader.head()
            with socket.create_connection(("127.0.0.1", self._port)) as service:
                self._sockets.append(service)
                answers = _Reader(service)
                while True:
                    self._pass_on(head, reader, client, answers, service)
                    head = reader.head()
        with self._condition:
            self.closed += 1
            self._condition.notify_all()

    def _pass_on(
        self,
        head: bytes,
        reader: _Reader,
        client: socket.socket,
        answers: _Reader,
        service: socket.socket,
    ) -> None:
        line = head.split(b"\r\n", 1)[0].decode()
        with self._condition:
            self.requests.append(line)
            self._carriers.append((line, client.fileno()))
            self._in_flight[line] += 1
            self._peaks[line] = max(self._peaks[line], self._in_flight[line])
            self._condition.notify_all()
        complete = False
        try:
            length = _length(head)
            asks_first = b"expect: 100-continue" in head.lower()
            body = b"" if asks_first else self._body(reader, length)
            self._wait_while(client, partial(self._is_held, line))
            service.sendall(head + body)
            answer = answers.head()
            if asks_first and answer.startswith(b"HTTP/1.1 100"):
                client.sendall(answer)
                service.sendall(self._body(reader, length))
                answer = answers.head()
            with self._condition:
                self.answers.append((line, int(answer.split()[1])))
            client.sendall(answer)
            self._pass_body(client, answers, _length(answer))
            complete = True
        finally:
            with self._condition:
                self._in_flight[line] -= 1
                if not complete:
                    self.abandoned += 1
                self._condition.notify_all()

    def _body(self, reader: _Reader, length: int) -> bytes:
        body = reader.exactly(length)
        with self._condition:
            self.body_bytes_received += len(body)
        return body

    def _pass_body(self, client: socket.socket, answers: _Reader, length: int) -> None:
        passed = 0
        while passed < length:
            piece = answers.exactly(min(PIECE, length - passed))
            client.sendall(piece)
            passed += len(piece)
            with self._condition:
                self.body_bytes_sent += len(piece)
            self._wait_while(client, partial(self._is_stalled, passed))

    def _is_held(self, line: str) -> bool:
        return self._held_text is not None and self._held_text in line

    def _is_stalled(self, passed: int) -> bool:
        return self.stall_after is not None and passed >= self.stall_after

    def _wait_while(self, client: socket.socket, holds: Callable[[], bool]) -> None:
        """Keep a request here; EOFError when its client gives it up."""
        with self._condition:
            if not holds():
                return
            self.held += 1
            self._condition.notify_all()
        try:
            while True:
                with self._condition:
                    if not holds():
                        return
                readable, _, _ = select.select([client], [], [], 0.01)
                if readable and not client.recv(1, socket.MSG_PEEK):
                    raise EOFError
        finally:
            with self._condition:
                self.held -= 1


class _Reader:
    """Reads heads and bodies off a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = b""

    def head(self) -> bytes:
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += self._more()
        head, separator, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head + separator

    def exactly(self, length: int) -> bytes:
        pieces = [self._buffer[:length]]
        self._buffer = self._buffer[length:]
        missing = length - len(pieces[0])
        while missing:
            pieces.append(self._more(missing))
            missing -= len(pieces[-1])
        return b"".join(pieces)

    def _more(self, limit: int = PIECE) -> bytes:
        data = self._sock.recv(min(limit, PIECE))
        if not data:
            raise EOFError
        return data


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
