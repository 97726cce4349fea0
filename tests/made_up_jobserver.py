"""A jobserver that runs nothing: it holds jobs until they may end, and notes what it is asked."""

from __future__ import annotations

import itertools
import json
import threading

from jobs import Submission
from made_up_service import MadeUpService
from seamless import Checksum
from services import wait_until
from stored_buffers import checksum_of, fresh

from seamless_remote import jobserver_remote

RESULT = Checksum("ab" * 32)
ENDED = 200, json.dumps({"result_checksum": RESULT.hex()}).encode()

_numbers = itertools.count()


class MadeUpJobserver:
    """Gives each job the `answer` (status and body), once it may: `let_go`, or it is canceled.

    It is the only jobserver that is active.
    """

    def __init__(self, answer: tuple[int, bytes] = ENDED) -> None:
        self.let_go = threading.Event()
        self.submitted: list[str] = []
        self.canceled: list[str] = []
        self.most_at_once = 0
        self._running: dict[str, threading.Event] = {}
        self._answer = answer
        self.service = MadeUpService(self._serve)
        self.url = self.service.url
        name = f"made-up-{next(_numbers)}"
        jobserver_remote.define_extern_client(name, "jobserver", url=self.url)
        jobserver_remote.activate(no_main=True, extern_clients=[name])

    def wait_for_jobs(self, count: int) -> None:
        """Block until so many have come."""
        wait_until(lambda: len(self.submitted) >= count)

    def close(self) -> None:
        self.let_go.set()
        self.service.close()

    def _serve(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if path == "/run-transformation":
            return self._run(json.loads(body)["tf_checksum"])
        name = path.rpartition("/")[2]
        if path.startswith("/cancel-transformation"):
            self.canceled.append(name)
            self._running.get(name, threading.Event()).set()
            return 200, json.dumps({"canceled": True, "status": "canceled"}).encode()
        if path.startswith("/transformation-status"):
            status = "running" if name in self._running else "not-running"
            return 200, json.dumps({"status": status}).encode()
        return 200, b"OK"

    def _run(self, name: str) -> tuple[int, bytes]:
        canceled = self._running[name] = threading.Event()
        self.submitted.append(name)
        self.most_at_once = max(self.most_at_once, len(self._running))
        # What is let go looks at once; what is canceled, at the event.
        while not (self.let_go.is_set() or canceled.wait(0.02)):
            pass
        del self._running[name]
        return self._answer


def new_job() -> Submission:
    """A job that no server has seen."""
    return Submission({"__language__": "python"}, checksum_of(fresh(30)))
