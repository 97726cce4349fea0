"""Jobs for a jobserver, made by hand, and a relay through which a connection can be cut."""

from __future__ import annotations

import json
import selectors
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registering import Source, url_of
from seamless import Buffer, Checksum
from services import Service

from seamless_remote import buffer_remote, database_remote, jobserver_remote

# Code for jobs. They say that they have begun, and wait, through files.
COUNT = """
def job(folder, number):
    import os, uuid
    open(os.path.join(folder, f"ran-{uuid.uuid4().hex}"), "w").close()
    return number + 1
"""
FAIL = """
def job(folder, number):
    import os, uuid
    open(os.path.join(folder, f"ran-{uuid.uuid4().hex}"), "w").close()
    raise ValueError("this is the user's own mistake")
"""
WAIT = """
def job(folder, number):
    import os, time, uuid
    open(os.path.join(folder, f"ran-{uuid.uuid4().hex}"), "w").close()
    while not os.path.exists(os.path.join(folder, "go")):
        time.sleep(0.02)
    return number + 1
"""
LAST = """
def job(folder, number):
    import os, time, uuid
    open(os.path.join(folder, f"ran-{uuid.uuid4().hex}"), "w").close()
    time.sleep(number)
    return number + 1
"""


@dataclass(frozen=True)
class Submission:
    """A transformation whose buffers are at the hashserver."""

    transformation_dict: dict[str, Any]
    tf_checksum: Checksum

    async def run(self) -> Any:
        return await jobserver_remote.run_transformation(
            self.transformation_dict,
            tf_checksum=self.tf_checksum,
            tf_dunder={},
            scratch=False,
        )


async def submission(code: str, folder: Path, number: int = 1) -> Submission:
    """A transformation of `code`, which is a function `job(folder, number)`."""
    transformation: dict[str, Any] = {
        "__language__": "python",
        "__output__": ["result", "mixed", None],
        "code": ["python", "transformer", await _upload(code.encode())],
        "folder": ["mixed", None, await _upload(_plain(str(folder)))],
        "number": ["mixed", None, await _upload(_plain(number))],
    }
    text = json.dumps(transformation, sort_keys=True, indent=2) + "\n"
    return Submission(transformation, Checksum(await _upload(text.encode())))


async def value_of(answer: Any) -> Any:
    """The value behind what `run_transformation` gives."""
    buffer = await buffer_remote.get_buffer(answer["result_checksum"])
    assert buffer is not None
    return json.loads(buffer.content)


def runs(folder: Path) -> int:
    """How often a job's code has begun to run."""
    return len(list(folder.glob("ran-*")))


def use(hashserver: Source, database: Source, *jobserver_urls: str) -> None:
    """Activate clients of running services."""
    buffer_remote.define_extern_client("h", "hashserver", url=url_of(hashserver), readonly=False)
    database_remote.define_extern_client("d", "database", url=url_of(database), readonly=False)
    names = [f"j{number}" for number in range(len(jobserver_urls))]
    for name, url in zip(names, jobserver_urls, strict=True):
        jobserver_remote.define_extern_client(name, "jobserver", url=url)
    buffer_remote.activate(no_main=True, extern_clients=["h"])
    database_remote.activate(no_main=True, extern_clients=["d"])
    jobserver_remote.activate(no_main=True, extern_clients=names)


async def _upload(content: bytes) -> str:
    buffer = Buffer(content)
    checksum = buffer.get_checksum()
    assert await buffer_remote.write_buffer(checksum, buffer)
    return str(checksum.hex())


def _plain(value: object) -> bytes:
    return (json.dumps(value) + "\n").encode()


class Relay:
    """A port that hands everything on to a service, until its connections are cut."""

    def __init__(self, target: Service) -> None:
        self._target = ("127.0.0.1", target.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._orders, self._ears = socket.socketpair()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="relay")
        self._thread.start()

    def cut(self) -> None:
        """Close all connections, on both sides; new ones are handed on as before."""
        self._done.clear()
        self._orders.send(b"c")
        assert self._done.wait(10)

    def close(self) -> None:
        self._orders.send(b"q")
        self._thread.join()
        self._orders.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector, self._listener, self._ears:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._ears, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    ready = key.fileobj
                    if ready is self._listener:
                        self._connect(selector)
                    elif ready is self._ears:
                        order = self._ears.recv(1)
                        for each in list(self._pairs):
                            self._drop(selector, each)
                        self._done.set()
                        if order == b"q":
                            return
                    elif ready in self._pairs:
                        self._hand_on(selector, ready)  # type: ignore[arg-type]

    def _connect(self, selector: selectors.BaseSelector) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(self._target)
        except OSError:
            near.close()
            return
        for one, other in ((near, far), (far, near)):
            self._pairs[one] = other
            selector.register(one, selectors.EVENT_READ)

    def _hand_on(self, selector: selectors.BaseSelector, ready: socket.socket) -> None:
        try:
            data = ready.recv(65536)
            if data:
                self._pairs[ready].sendall(data)
                return
        except OSError:
            pass
        self._drop(selector, ready)

    def _drop(self, selector: selectors.BaseSelector, one: socket.socket) -> None:
        other = self._pairs.pop(one, None)
        if other is not None:
            del self._pairs[other]
            for each in (one, other):
                selector.unregister(each)
                each.close()
