"""The client of a hashserver: what to ask it, and what its answers mean.

The requests and answers were read off hashserver 1.1.0 (and its source); it is plain HTTP/1.1.
"""

from __future__ import annotations

import io
import itertools
import json
import logging
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import anyio

from ..buffers.download import AskLength, Download, Outcome, measure
from ..buffers.hashing import checksum_of
from ..buffers.ingest import Target
from ..buffers.wide_body import Ranges
from ..errors import AnswerError, DamagedBufferError, ExchangeError, WrongBytesError
from ..nursery.calls import Call
from ..transport.messages import Request, Response
from ..transport.urls import is_loopback
from . import retry_policy
from .answers import OK, json_of
from .awaited_buffers import AwaitedBuffers, Presence
from .base import ANSWER_LIMIT, CONTROL_LANE, Client, quote
from .endpoint import Address, Endpoint
from .uploads import Uploads

logger = logging.getLogger(__name__)

UPLOAD_LANE = "upload"
"""Uploads have connections of their own: downloads of promised buffers may be waiting for them."""

RANGES_LANE = "ranges"
"""Of a large download from far away (see `buffers.wide_body`)."""

QUESTIONS_LANE = "questions"
"""Questions may wait for an upload to end, and a download or an upload for their answer."""

EXPECT_FROM_BYTES = 64 * 1024
"""Use Expect: 100-continue from this size on."""

EXPECT_FROM_BYTES_FAR = 8 * 1024 * 1024
"""The same for a server that is far away: to ask it costs a round trip, in which as much could be
sent as many a path carries."""

LENGTHS_AT_ONCE = 10_000
"""How many checksums one question names at most."""

REFUSAL_BYTES = 64 * 1024
"""What a refusal may say beyond the question."""

HEAD_PATIENCE = 0.2
"""Seconds after which a download without any answer asks whether its buffer is only promised."""

_JSON = (("Content-Type", "application/json"),)


class HashserverClient(Client):
    """A hashserver at some address. Checksums are 64 hex digits."""

    service = "hashserver"

    def __init__(self, address: Address, *, readonly: bool) -> None:
        super().__init__(address, readonly=readonly)
        self._begin_transfers()

    def after_fork_in_child(self) -> None:
        super().after_fork_in_child()
        self._begin_transfers()

    def _begin_transfers(self) -> None:
        self._uploads = Uploads()
        self._widening = threading.Lock()
        self._expects = True
        """Whether Expect: 100-continue may be sent: false once it was refused."""
        self._awaited = AwaitedBuffers(self._ask_presence)

    def download(self, checksum: str) -> MemoryDownload:
        """A download into memory, still to be run."""
        return MemoryDownload(self, checksum)

    async def copy_buffer(
        self, call: Call, checksum: str, target: Target, restart: Callable[[], None]
    ) -> bool:
        """Download a buffer to `target` in constant memory.

        False if the server does not have it, or has wrong bytes (logged). Waits while the buffer is
        promised. `restart` empties the target: whenever the bytes begin anew, and when nothing was
        found. ServiceError: the server could not be asked.
        """
        download = Download(checksum, target, restart)
        try:
            found = await self.run_download(call, download)
        except Exception:
            await download.begin_anew()
            raise
        if not found:
            await download.begin_anew()
        return found

    async def run_download(self, call: Call, download: Download) -> bool:
        """Run a download to its end, from where it stands. Result and errors as above."""
        received = download.received
        try:
            return await self._attempt(
                call,
                f"the download of {download.checksum}",
                self._download_once,
                download,
                progress=lambda: download.position,
            )
        finally:
            self.counters.receive(download.received - received)

    async def _download_once(self, call: Call, endpoint: Endpoint, download: Download) -> bool:
        checksum = download.checksum

        async def ask_length() -> int | None:
            (answer,) = await self._ask(call, endpoint, "/buffer-length", [checksum])
            return await self._length(call, endpoint, checksum, answer)

        outcome = Outcome.ANEW
        while outcome is Outcome.ANEW:
            request = download.request(f"{endpoint.path}/{checksum}")
            async with await self._get(call, endpoint, request, checksum) as response:
                if not download.is_answered_by(response):
                    return await self._no_buffer(response, checksum)
                outcome = await self._take(call, endpoint, download, response, ask_length)
        if outcome is Outcome.WRONG:
            logger.warning(
                "%s at %s sent wrong bytes for %s: %s; the next source is tried",
                self.service,
                endpoint.url,
                checksum,
                download.fault,
            )
        return outcome is Outcome.RIGHT

    async def _take(
        self,
        call: Call,
        endpoint: Endpoint,
        download: Download,
        response: Response,
        ask_length: AskLength,
    ) -> Outcome:
        """Take an answer; from far away, by several connections at once."""

        async def open_ranges(ranges: Ranges) -> Response:
            wanted = ",".join(f"{first}-{last}" for first, last in ranges)
            request = Request(
                "GET",
                f"{endpoint.path}/{download.checksum}",
                headers=(("Range", f"bytes={wanted}"),),
                safe=True,
            )
            return await self._send(call, endpoint, request, lane=RANGES_LANE, patience=0.0)

        # One at a time: of several, each would wait for the connections that the others have.
        if not self._is_far(endpoint) or not self._widening.acquire(blocking=False):
            return await download.take(response, ask_length)
        wide = download.widened(response, open_ranges)
        try:
            return await download.take(response, ask_length, wide)
        finally:
            self._widening.release()
            if wide is not None:
                wide.close()

    def _is_far(self, endpoint: Endpoint) -> bool:
        """Whether a round trip costs much, or may do so where no ping has told yet."""
        if endpoint.is_elsewhere:
            return self.health.is_far or not self.health.round_trip
        # On a busy machine its own services seem to be far away, too.
        return self.health.is_far and not is_loopback(endpoint.origin.host)

    async def _get(
        self, call: Call, endpoint: Endpoint, request: Request, checksum: str
    ) -> Response:
        """Ask for a buffer; return when the head of the answer has come.

        The server does not answer while a buffer is promised. Such a read gives its connection up,
        for others may need it, and asks now and then, for all that wait, whether theirs has come.
        """
        # A new connection takes a round trip or two more.
        patience = max(HEAD_PATIENCE, 4 * self.health.round_trip)
        while True:
            response = await self._send(call, endpoint, request, patience=patience)
            try:
                if not response.is_pending:
                    return response
                await self._uploads.free_stuck(call, checksum)
                (presence,) = await self._ask_presence(call, endpoint, [checksum])
                if presence is not Presence.PROMISED:
                    # Stored: the server hashes a large file before it answers.
                    await response.arrive()
                    return response
            except BaseException:
                response.abandon()
                raise
            response.abandon()
            await self._awaited.until_settled(call, endpoint, checksum)

    async def put_buffer(self, call: Call, checksum: str, content: bytes | memoryview) -> bool:
        """Upload a buffer; True when the server is known to have it stored.

        Raises:
            ServiceError: the server could not be reached, or did not confirm it.
            WrongBytesError: the bytes do not have that checksum.
            RefusedError: the server is read-only, or refuses for another reason.
        """
        what = f"the upload of {checksum} ({len(content)} bytes)"

        async def attempt(call: Call, endpoint: Endpoint) -> bool:
            for follow_up in itertools.count(1):
                status, body = await self._put(call, endpoint, checksum, content)
                if status == 200:
                    self._require(OK, what, status, body)
                    return True
                if status == 201:
                    self._require(b"", what, status, body)
                    length = memoryview(content).nbytes
                    await self._require_whole(call, endpoint, checksum, length)
                    return True
                if status != 202:
                    break
                # Somebody else is uploading it. The question about its length is answered when
                # that upload has ended, one way or the other; then this one is tried again.
                await self._uploads.free_stuck(call, checksum)
                await self._ask(call, endpoint, "/buffer-length", [checksum])
                if follow_up > 1:
                    await anyio.sleep(retry_policy.pause(follow_up, random.random))
            if status == 400 and b"checksum" in body:
                if await checksum_of(content) == checksum:
                    raise ExchangeError("other bytes arrived than were sent")
                raise WrongBytesError(
                    f"{self.describe()}: {what}: these bytes have another checksum"
                )
            raise self._refused(what, status, body)

        return await self._attempt(call, what, attempt)

    async def put_promise(self, call: Call, checksum: str) -> None:
        """Tell the server that a buffer is on its way."""
        what = f"the promise of {checksum}"

        async def attempt(call: Call, endpoint: Endpoint) -> None:
            request = Request("PUT", f"{endpoint.path}/promise/{checksum}", safe=True)
            status, body = await self._exchange(call, endpoint, request, lane=CONTROL_LANE)
            if status >= 300:
                raise self._refused(what, status, body)
            if (json_of(body, dict) or {}).get("checksum") != checksum:
                raise AnswerError(
                    f"{self.describe()} answered {what} with {status} and {quote(body[:200])!r}, "
                    "which is no promise: something else than this service answers there"
                )

        await self._attempt(call, what, attempt)

    async def get_lengths(self, call: Call, checksums: Sequence[str]) -> list[int | None]:
        """The lengths of the uncompressed buffers in bytes, None if the server has none."""
        lengths: list[int | None] = []
        for start in range(0, len(checksums), LENGTHS_AT_ONCE):
            part = checksums[start : start + LENGTHS_AT_ONCE]

            async def attempt(
                call: Call, endpoint: Endpoint, part: Sequence[str] = part
            ) -> list[int | None]:
                answers = await self._ask(call, endpoint, "/buffer-length", part)
                return [
                    await self._length(call, endpoint, checksum, answer)
                    for checksum, answer in zip(part, answers, strict=True)
                ]

            lengths += await self._attempt(call, f"the lengths of {len(part)} buffers", attempt)
        return lengths

    async def _put(
        self, call: Call, endpoint: Endpoint, checksum: str, content: bytes | memoryview
    ) -> tuple[int, bytes]:
        # The server answers 201 and 202 before it reads the body. With Expect: 100-continue, a
        # large body that it has already is not sent (RFC 9110, 10.1.1).
        expect_from = EXPECT_FROM_BYTES_FAR if self._is_far(endpoint) else EXPECT_FROM_BYTES
        while True:
            request = Request(
                "PUT",
                f"{endpoint.path}/{checksum}",
                body=content,
                expect_continue=self._expects and len(content) >= expect_from,
                safe=True,
            )
            with self._uploads.under_way(call, checksum, request):
                status, body = await self._exchange(call, endpoint, request, lane=UPLOAD_LANE)
            if status != 417 or not request.expect_continue:
                return status, body
            # RFC 9110, 15.5.18: something on the way does not know it.
            self._expects = False

    async def _require_whole(
        self, call: Call, endpoint: Endpoint, checksum: str, length: int
    ) -> None:
        """DamagedBufferError if the server has a file for a buffer, and not all of it.

        It keeps such a file for ever, and answers that it has the buffer.
        """
        if not length:
            return  # of an empty buffer it tells the same as of one that it has not
        # Over a connection that the upload may have left.
        question = "/buffer-length"
        (answer,) = await self._ask(call, endpoint, question, [checksum], UPLOAD_LANE)
        if answer is True:
            return  # somebody promises it again just now: then nobody can tell
        found = self._stated_length(checksum, answer)
        if found != length:
            raise DamagedBufferError(
                f"{self.describe()} says that it has {checksum}, but {found} bytes of it instead "
                f"of {length}: its file is damaged, and no other is taken. Remove {checksum} from "
                "the server's folder, and write the buffer again"
            )

    async def _ask(
        self,
        call: Call,
        endpoint: Endpoint,
        question: str,
        checksums: Sequence[str],
        lane: str = QUESTIONS_LANE,
    ) -> list[Any]:
        """Ask one of the questions whose body and answer are lists of the same length."""
        body = json.dumps(list(checksums)).encode()
        request = Request("GET", endpoint.path + question, headers=_JSON, body=body, safe=True)
        # Of each checksum there is less to say than the checksum; a refusal may repeat them all.
        limit = len(body) + REFUSAL_BYTES
        status, text = await self._exchange(call, endpoint, request, lane=lane, limit=limit)
        if status != 200:
            raise self._refused(question, status, text)
        answers = json_of(text, list)
        if answers is None or len(answers) != len(checksums):
            raise AnswerError(
                f"{self.describe()} answered {question} for {len(checksums)} "
                f"checksums with {quote(text[:200])!r}"
            )
        return answers

    async def _length(
        self, call: Call, endpoint: Endpoint, checksum: str, answer: object
    ) -> int | None:
        """What one answer to `/buffer-length` says: `true` if promised, 0 if absent.

        0 for the empty buffer, too, but nobody needs to ask about that.
        """
        if answer is True:
            return await self._promised_length(call, endpoint, checksum)
        return self._stated_length(checksum, answer) or None

    def _stated_length(self, checksum: str, answer: object) -> int:
        """The number that an answer to `/buffer-length` is; AnswerError if it is none."""
        if isinstance(answer, bool) or not isinstance(answer, int) or answer < 0:
            raise AnswerError(f"{self.describe()} gave {answer!r} as the length of {checksum}")
        return answer

    async def _promised_length(self, call: Call, endpoint: Endpoint, checksum: str) -> int | None:
        """The length of a promised buffer. The server does not tell it, even if it has the buffer.

        If it does, download the buffer to measure it.
        """
        (presence,) = await self._ask_presence(call, endpoint, [checksum])
        if presence is not Presence.STORED:
            return None
        request = Request("GET", f"{endpoint.path}/{checksum}", safe=True)
        # Not among the downloads, one of which may be waiting for this answer.
        async with await self._send(call, endpoint, request, lane=QUESTIONS_LANE) as response:
            if response.status == 200:
                return await measure(response)
            await self._no_buffer(response, checksum)
            return None

    async def _ask_presence(
        self, call: Call, endpoint: Endpoint, checksums: Sequence[str]
    ) -> list[Presence]:
        """Where the server stands with each buffer."""
        found: list[Presence] = []
        for start in range(0, len(checksums), LENGTHS_AT_ONCE):
            part = checksums[start : start + LENGTHS_AT_ONCE]
            # In this order: what is stored between the two is seen as stored or promised.
            known = await self._ask(call, endpoint, "/has", part, CONTROL_LANE)
            stored = await self._ask(call, endpoint, "/has-now", part, CONTROL_LANE)
            if not all(isinstance(each, bool) for each in [*known, *stored]):
                raise AnswerError(
                    f"{self.describe()} was asked whether it has {len(part)} buffers, and "
                    f"answered {quote(json.dumps([known[:3], stored[:3]]).encode())}"
                )
            found += map(_presence, known, stored)
        return found

    async def _no_buffer(self, response: Response, checksum: str) -> bool:
        """What an answer other than 200 to a download means: False, or an error."""
        body = await response.read(ANSWER_LIMIT)
        if response.status == 404:
            # Every web server has a 404 of its own, and a buffer that seems to be gone is given up.
            self._require(b"Not found", f"the download of {checksum}", 404, body)
            return False
        self._raise_if_transient(response, body)
        if response.status == 400 and b"corruption" in body:
            logger.warning(
                "%s at %s has a corrupt file for %s: %s; the next source is tried",
                self.service,
                self.url,
                checksum,
                quote(body),
            )
            return False
        raise self._refused(f"the download of {checksum}", response.status, body)


class MemoryDownload:
    """A download into memory, for several callers: it can be run on after a run was cancelled."""

    def __init__(self, client: HashserverClient, checksum: str) -> None:
        self._client = client
        # BytesIO grows by moving pages, and gives its bytes away uncopied.
        self._memory = io.BytesIO()
        self._download = Download(checksum, self._memory, self._restart)

    def _restart(self) -> None:
        self._memory.seek(0)
        self._memory.truncate()

    async def run(self, call: Call) -> bytes | None:
        """The buffer; None if the server does not have it, or has wrong bytes (logged).

        Waits while the buffer is promised. ServiceError: the server could not be asked.
        """
        found = await self._client.run_download(call, self._download)
        return self._memory.getvalue() if found else None


def _presence(known: bool, stored: bool) -> Presence:
    if stored:
        return Presence.STORED
    return Presence.PROMISED if known else Presence.ABSENT
