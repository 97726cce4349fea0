"""The client of a hashserver: what to ask it, and what its answers mean.

The requests and answers were read off hashserver 1.1.0 (and its source); it is plain HTTP/1.1.
"""

from __future__ import annotations

import io
import itertools
import json
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import anyio

from .endpoint import Address, Endpoint
from ..buffers.download import Download, Outcome, measure
from .base import ANSWER_LIMIT, CONTROL_LANE, Client, quote
from ..errors import AnswerError, ExchangeError, RemoteError, WrongBytesError
from ..buffers.hashing import checksum_of
from ..buffers.ingest import Target
from .answers import json_of
from ..nursery.scope import Scope
from . import retry_policy as retry
from ..transport.messages import Request, Response

logger = logging.getLogger(__name__)

UPLOAD_LANE = "upload"
"""Uploads have connections of their own: downloads of promised buffers may be waiting for them."""

QUESTIONS_LANE = "questions"
"""Questions may wait for an upload to end, and a download or an upload for their answer."""

ASK_BEFORE_BYTES = 64 * 1024
"""From this many bytes on, the server is asked for its go before the body of an upload is sent."""

LENGTHS_AT_ONCE = 10_000
"""How many checksums one question about lengths names at most."""

REFUSAL_BYTES = 64 * 1024
"""What a refusal may say beyond the question."""

_JSON = (("Content-Type", "application/json"),)


class HashserverClient(Client):
    """A hashserver at some address; its coroutines run in a scope. Checksums are 64 hex digits."""

    service = "hashserver"

    def __init__(self, address: Address, *, readonly: bool) -> None:
        super().__init__(address, readonly=readonly)
        self._uploads: dict[str, Request] = {}

    async def get_in(self, scope: Scope, checksum: str) -> bytes | None:
        """Download a buffer; None where the server does not have it, or has wrong bytes (logged).

        Waits while the buffer is promised. ServiceError: the server could not be asked.
        """
        # It grows by moving pages, and gives its bytes away uncopied.
        memory = io.BytesIO()

        def restart() -> None:
            memory.seek(0)
            memory.truncate()

        if not await self.copy_in(scope, checksum, memory, restart):
            return None
        return memory.getvalue()

    async def copy_in(
        self, scope: Scope, checksum: str, target: Target, restart: Callable[[], None]
    ) -> bool:
        """Download a buffer to `target` in constant memory; False where `get_in` gives None.

        `restart` empties the target: whenever the bytes begin anew, and where nothing is found.
        """
        download = Download(checksum, target, restart)

        async def attempt(scope: Scope, endpoint: Endpoint) -> bool:
            async def ask_length() -> int | None:
                (answer,) = await self._ask(scope, endpoint, "/buffer-length", [checksum])
                return await self._length(scope, endpoint, checksum, answer)

            outcome = Outcome.ANEW
            while outcome is Outcome.ANEW:
                request = download.request(f"{endpoint.path}/{checksum}")
                async with await self._send(scope, endpoint, request) as response:
                    if not download.is_answered_by(response):
                        return await self._no_buffer(response, checksum)
                    outcome = await download.take(response, ask_length)
            if outcome is Outcome.WRONG:
                logger.warning(
                    "%s at %s sent wrong bytes for %s: %s; the next source is tried",
                    self.service,
                    endpoint.url,
                    checksum,
                    download.fault,
                )
            return outcome is Outcome.RIGHT

        found = False
        try:
            found = await self._attempt(scope, f"the download of {checksum}", attempt)
        except RemoteError:
            await download.begin_anew()
            raise
        finally:
            self._bytes_received += download.received
        if not found:
            await download.begin_anew()
        return found

    async def put_in(self, scope: Scope, checksum: str, content: bytes | memoryview) -> bool:
        """Upload a buffer; True when the server is known to have it stored.

        Raises:
            ServiceError: the server could not be reached, or did not confirm it.
            WrongBytesError: the bytes do not have that checksum.
            RefusedError: the server is read-only, or refuses for another reason.
        """
        what = f"the upload of {checksum} ({len(content)} bytes)"

        async def attempt(scope: Scope, endpoint: Endpoint) -> bool:
            for follow_up in itertools.count(1):
                status, body = await self._put(scope, endpoint, checksum, content)
                if status in (200, 201):
                    return True
                if status != 202:
                    break
                # Somebody else is uploading it. The question about its length is answered when
                # that upload has ended, one way or the other; then this one is tried again.
                self._end_stuck_upload(scope, checksum)
                await self._ask(scope, endpoint, "/buffer-length", [checksum])
                if follow_up > 1:
                    await anyio.sleep(retry.pause(follow_up, random.random))
            if status == 400 and b"checksum" in body:
                if await checksum_of(content) == checksum:
                    raise ExchangeError("other bytes arrived than were sent")
                raise WrongBytesError(
                    f"{self.service} at {endpoint.url}: {what}: these bytes have another checksum"
                )
            raise self._refused(what, status, body)

        return await self._attempt(scope, what, attempt)

    async def promise_in(self, scope: Scope, checksum: str) -> None:
        what = f"the promise of {checksum}"

        async def attempt(scope: Scope, endpoint: Endpoint) -> None:
            request = Request("PUT", f"{endpoint.path}/promise/{checksum}", safe=True)
            status, body = await self._exchange(scope, endpoint, request, lane=CONTROL_LANE)
            if status >= 300:
                raise self._refused(what, status, body)

        await self._attempt(scope, what, attempt)

    async def lengths_in(self, scope: Scope, checksums: Sequence[str]) -> list[int | None]:
        """The lengths of the uncompressed buffers in bytes, None where the server has none."""
        lengths: list[int | None] = []
        for start in range(0, len(checksums), LENGTHS_AT_ONCE):
            part = checksums[start : start + LENGTHS_AT_ONCE]

            async def attempt(
                scope: Scope, endpoint: Endpoint, part: Sequence[str] = part
            ) -> list[int | None]:
                answers = await self._ask(scope, endpoint, "/buffer-length", part)
                return [
                    await self._length(scope, endpoint, checksum, answer)
                    for checksum, answer in zip(part, answers, strict=True)
                ]

            lengths += await self._attempt(scope, f"the lengths of {len(part)} buffers", attempt)
        return lengths

    async def _put(
        self, scope: Scope, endpoint: Endpoint, checksum: str, content: bytes | memoryview
    ) -> tuple[int, bytes]:
        # The server answers 201 and 202 before it reads the body: a large one is sent only at its
        # go (RFC 9110, 10.1.1), so that what it has costs nothing.
        request = Request(
            "PUT",
            f"{endpoint.path}/{checksum}",
            body=content,
            expect_continue=len(content) >= ASK_BEFORE_BYTES,
            safe=True,
        )
        self._uploads.setdefault(checksum, request)
        try:
            return await self._exchange(scope, endpoint, request, lane=UPLOAD_LANE)
        finally:
            if self._uploads.get(checksum) is request:
                del self._uploads[checksum]

    def _end_stuck_upload(self, scope: Scope, checksum: str) -> None:
        """End an upload of this process whose loop stands still: nobody else could complete it."""
        upload = self._uploads.get(checksum)
        abort = None if upload is None or not scope.alone else upload.abort
        if abort is not None:
            logger.info("the upload of %s is stuck with its event loop; it is begun anew", checksum)
            abort()

    async def _ask(
        self, scope: Scope, endpoint: Endpoint, question: str, checksums: Sequence[str]
    ) -> list[Any]:
        """Ask one of the questions whose body and answer are lists of the same length."""
        body = json.dumps(list(checksums)).encode()
        request = Request("GET", endpoint.path + question, headers=_JSON, body=body, safe=True)
        # Of each checksum there is less to say than the checksum; a refusal may repeat them all.
        limit = len(body) + REFUSAL_BYTES
        status, text = await self._exchange(
            scope, endpoint, request, lane=QUESTIONS_LANE, limit=limit
        )
        if status != 200:
            raise self._refused(question, status, text)
        answers = json_of(text, list)
        if answers is None or len(answers) != len(checksums):
            raise AnswerError(
                f"{self.service} at {endpoint.url} answered {question} for {len(checksums)} "
                f"checksums with {quote(text[:200])!r}"
            )
        return answers

    async def _length(
        self, scope: Scope, endpoint: Endpoint, checksum: str, answer: object
    ) -> int | None:
        """What one answer to `/buffer-length` says: `true` where promised, 0 where absent.

        0 for the empty buffer as well, about which nobody needs to ask.
        """
        if answer is True:
            return await self._promised_length(scope, endpoint, checksum)
        if isinstance(answer, bool) or not isinstance(answer, int) or answer < 0:
            raise AnswerError(
                f"{self.service} at {endpoint.url} gave {answer!r} as the length of {checksum}"
            )
        return answer or None

    async def _promised_length(self, scope: Scope, endpoint: Endpoint, checksum: str) -> int | None:
        """The length of a buffer that is promised, which the server does not tell even if it has
        it.

        It is measured by a download, where the server does have it.
        """
        (stored,) = await self._ask(scope, endpoint, "/has-now", [checksum])
        if not isinstance(stored, bool):
            raise AnswerError(
                f"{self.service} at {endpoint.url} was asked whether it has {checksum}, and "
                f"answered {stored!r}"
            )
        if not stored:
            return None
        request = Request("GET", f"{endpoint.path}/{checksum}", safe=True)
        # Not among the downloads, one of which may be waiting for this answer.
        async with await self._send(scope, endpoint, request, lane=QUESTIONS_LANE) as response:
            if response.status == 200:
                return await measure(response)
            await self._no_buffer(response, checksum)
            return None

    async def _no_buffer(self, response: Response, checksum: str) -> bool:
        """What an answer other than 200 to a download means: False, or an error."""
        body = await response.read(ANSWER_LIMIT)
        if response.status == 404:
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
