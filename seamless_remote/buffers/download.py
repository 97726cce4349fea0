"""Downloading a buffer from a hashserver: verified, in constant memory, resumed where it broke off.

What is sent to which server, and when it is tried again, is the client's.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable

from ..errors import ServiceError, WrongBytesError
from .ingest import FREE_BYTES, Intake, Nowhere, Target, TooLongError, take_all
from ..nursery.worker_threads import offload
from ..transport.messages import Request, Response

ASK_LENGTH_BYTES = FREE_BYTES // 8
"""From this size on, or of unknown size, it is asked for how many plain bytes a body stands before
it is taken. A smaller one that turns out to stand for more than `FREE_BYTES` is cheaply sent anew.
"""

AskLength = Callable[[], Awaitable["int | None"]]
"""Asks the server for the length of the uncompressed buffer in bytes; None: it has none."""


class Outcome(enum.Enum):
    """What has become of an answer."""

    RIGHT = enum.auto()
    """The buffer is in the target, and has its checksum."""

    WRONG = enum.auto()
    """The server sends something else under this checksum (see `Download.fault`)."""

    ANEW = enum.auto()
    """The buffer is to be asked for once more, from its first byte on."""


class Download:
    """A buffer on its way to `target`, in as many answers as that takes.

    What came of an answer that broke off stays in the target, and the next request asks for the
    rest only (`Range`, RFC 9110, 14), where the body is plain and of announced length, and a first
    batch of it was taken in: below that there is nothing to win. A hashserver checks the whole file
    before either answer, so that the rest is never dearer than the whole.

    `restart` empties the target; it is called (in a worker thread) whenever the bytes begin anew.
    """

    def __init__(self, checksum: str, target: Target, restart: Callable[[], None]) -> None:
        self.received = 0
        """Bytes that came so far, in all answers."""
        self.fault = ""
        """What was wrong, after `Outcome.WRONG`."""
        self._checksum = checksum
        self._target = target
        self._restart = restart
        self._dirty = False
        self._intake: Intake | None = None
        self._announced: int | None = None
        self._stated: int | None = None
        self._resumed = False

    def request(self, path: str) -> Request:
        """The request for the buffer at `path`, or for what is missing of it."""
        if self._intake is None:
            return Request("GET", path, safe=True)
        wanted = ("Range", f"bytes={self._intake.length}-")
        return Request("GET", path, headers=(wanted,), safe=True)

    def is_answered_by(self, response: Response) -> bool:
        """Whether `take` knows what to do with this answer to the request: 200, or about a part."""
        parts = () if self._intake is None else (206, 416)
        return response.status == 200 or response.status in parts

    async def take(self, response: Response, ask_length: AskLength) -> Outcome:
        """Take an answer in, and verify the whole.

        `ask_length` is awaited where a body may stand for more bytes than memory is granted for.
        ServiceError: it broke off; the next request goes on from there. Errors of the target come
        out as they are.
        """
        if response.status == 200:
            await self.begin_anew()
            intake = await self._begin(response, ask_length)
        elif self._intake is not None and self._continues(response):
            intake = self._intake
            self._resumed = True
        else:
            await self.begin_anew()
            return Outcome.ANEW
        before = intake.length
        self._dirty = True
        try:
            actual = await take_all(intake, response.fill, response.content_length)
        except TooLongError as exc:
            if self._stated is None and not self._resumed:
                self._stated = await ask_length() or 0
                return Outcome.ANEW
            return await self._wrong(str(exc))
        except WrongBytesError as exc:
            return await self._wrong(str(exc))
        except ServiceError:
            if intake.compressed or self._announced is None or not intake.length:
                await self.begin_anew()
            else:
                self._intake = intake
            raise
        finally:
            self.received += intake.length - before
        if actual == self._checksum:
            return Outcome.RIGHT
        return await self._wrong(f"their checksum is {actual}")

    async def begin_anew(self) -> None:
        """Forget what came so far."""
        self._intake = self._announced = None
        self._resumed = False
        if self._dirty:
            await offload(self._restart)
            self._dirty = False

    async def _begin(self, response: Response, ask_length: AskLength) -> Intake:
        encoding = response.headers.get("Content-Encoding")
        size = response.content_length
        if encoding is None and size is not None:
            self._announced = size
            return Intake(self._target, None, size)
        # Few bytes may inflate without end, and a body without a length may never end.
        if self._stated is None and (size is None or size >= ASK_LENGTH_BYTES):
            self._stated = await ask_length() or 0
        return Intake(self._target, encoding, FREE_BYTES if self._stated is None else self._stated)

    def _continues(self, response: Response) -> bool:
        """Whether this is the part that was asked for: all that is missing, in plain bytes."""
        assert self._intake is not None
        assert self._announced is not None
        return (
            response.status == 206
            and response.headers.get("Content-Encoding") is None
            and response.headers.get("Content-Range")
            == f"bytes {self._intake.length}-{self._announced - 1}/{self._announced}"
        )

    async def _wrong(self, fault: str) -> Outcome:
        """Of two answers that do not fit together, either may be right: one alone is to tell."""
        resumed = self._resumed
        self.fault = fault
        await self.begin_anew()
        return Outcome.ANEW if resumed else Outcome.WRONG


async def measure(response: Response) -> int:
    """The length in bytes of the uncompressed buffer that an answer brings."""
    encoding = response.headers.get("Content-Encoding")
    if encoding is None and response.content_length is not None:
        return response.content_length
    intake = Intake(Nowhere(), encoding)
    await take_all(intake, response.fill, response.content_length)
    return intake.length
