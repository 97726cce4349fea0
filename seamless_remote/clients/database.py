"""The client of the result database: what to ask it, and what its answers mean.

The requests and answers were read off seamless-database 2.1.0 (protocol 2.2): one URL, a JSON
object in the body of GET as of PUT, 404 for a key that it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from ..checksums import is_checksum
from ..errors import AnswerError, ExchangeError, RefusedError
from ..launching.placement import Placement
from ..nursery.calls import Call
from ..nursery.process import this_process
from ..transport.messages import Request
from .answers import OK, json_of
from .base import Client, quote
from .endpoint import Endpoint, KnownAddress, LaunchedAddress

T = TypeVar("T")

DIFFERENT_METADATA = "already exists with different metadata"
"""What the database's 409 says if it holds another execution record."""


UNKNOWN = b"ERROR:"
"""How the database's 404 begins. Every web server has a 404 of its own, and a result that seems to
be unknown is computed again."""


@dataclass(frozen=True, slots=True)
class _Confirmation:
    """How to find out whether a write took effect if its answer got lost.

    `shows` gets the answer to `question`: None for an unknown key.
    """

    question: dict[str, Any]
    shows: Callable[[bytes | None], bool]


class DatabaseClient(Client):
    """A result database at a known URL. Checksums go in and come out as 64 hex digits.

    Reads give None if the database does not know the key. All raise ServiceError if it cannot be
    reached, RefusedError if it refuses, and AnswerError if its answer makes no sense.
    """

    service = "database"

    def __init__(self, *, readonly: bool = True, url: str) -> None:
        """ValueError for a malformed `url`."""
        super().__init__(KnownAddress(url), readonly=readonly)

    # Reads.

    def get_result(self, call: Call, tf_checksum: str) -> Awaitable[str | None]:
        """The checksum of a transformation's result."""
        question = {"type": "transformation", "checksum": tf_checksum}
        return self._look_up(call, question, DatabaseClient._checksum_in)

    def get_rev_transformations(self, call: Call, result: str) -> Awaitable[list[str] | None]:
        """The transformations that have this result: each once, in the order of their recording."""
        question = {"type": "rev_transformations", "checksum": result}
        return self._look_up(call, question, DatabaseClient._checksums_in)

    def get_execution_record(
        self, call: Call, tf_checksum: str
    ) -> Awaitable[dict[str, Any] | None]:
        """The execution record of a transformation."""
        question = {"type": "metadata", "checksum": tf_checksum}
        return self._look_up(call, question, DatabaseClient._object_in)

    def get_bucket_probe(
        self, call: Call, bucket_kind: str, label: str
    ) -> Awaitable[dict[str, Any] | None]:
        """The last probe of a bucket."""
        question = {"type": "bucket_probe", "bucket_kind": bucket_kind, "label": label}
        return self._look_up(call, question, DatabaseClient._object_in)

    def get_irreproducible_records(
        self, call: Call, tf_checksum: str, result: str | None
    ) -> Awaitable[list[dict[str, Any]] | None]:
        """The contested results of a transformation (only `result`, if given)."""
        question = {"type": "irreproducible", "checksum": tf_checksum}
        if result is not None:
            question["result"] = result
        return self._look_up(call, question, DatabaseClient._objects_in)

    # Writes.

    def set_result(self, call: Call, tf_checksum: str, result: str) -> Awaitable[bool]:
        """Record a transformation's result, in place of an earlier one; True when it is written."""
        confirmation = _Confirmation(
            {"type": "transformation", "checksum": tf_checksum},
            lambda answer: answer == result.encode(),
        )
        value = {"type": "transformation", "checksum": tf_checksum, "value": result}
        return self._put(call, value, confirmation)

    async def set_execution_record(
        self, call: Call, tf_checksum: str, result: str, record: dict[str, Any]
    ) -> bool:
        """Record how a transformation was executed.

        True when it is written; False if the database holds another record for it already.
        """
        value = {"type": "metadata", "checksum": tf_checksum, "result": result, "value": record}
        try:
            return await self._put(call, value)
        except RefusedError as exc:
            if exc.status == 409 and DIFFERENT_METADATA in exc.text:
                return False
            raise

    def set_bucket_probe(
        self,
        call: Call,
        bucket_kind: str,
        label: str,
        bucket_checksum: str,
        freshness_tokens: dict[str, Any],
        captured_at: str,
    ) -> Awaitable[bool]:
        """Record a probe of a bucket, in place of an earlier one; True when it is written."""
        value = {
            "type": "bucket_probe",
            "bucket_kind": bucket_kind,
            "label": label,
            "bucket_checksum": bucket_checksum,
            "freshness_tokens": freshness_tokens,
            "captured_at": captured_at,
        }
        return self._put(call, value)

    async def undo_result(self, call: Call, tf_checksum: str, result: str) -> bool:
        """Contest a result and remove it; False if the transformation has another result."""
        question = {"type": "irreproducible", "checksum": tf_checksum, "result": result}
        before = await self._look_up(call, question, DatabaseClient._as_it_came)
        confirmation = _Confirmation(question, lambda answer: answer not in (None, before))
        try:
            return await self._put(call, question, confirmation)
        except RefusedError as exc:
            if exc.status == 404:
                return False
            raise

    # Thousands of calls may wait for their turn at the limiter. So there are few coroutines between
    # a call and that, and few objects that are made for it: the collector looks at each again and
    # again.

    def _look_up(
        self, call: Call, question: dict[str, Any], read: Callable[[DatabaseClient, bytes], T]
    ) -> Awaitable[T | None]:
        """Ask, and `read` the answer; None for an unknown key."""
        what = f"the look-up of a {question['type']}"
        body = json.dumps(question).encode()
        return self._attempt(call, what, self._ask_in_turn, "GET", body, what, read)

    async def _ask_in_turn(
        self,
        call: Call,
        endpoint: Endpoint,
        method: str,
        body: bytes,
        what: str,
        read: Callable[[DatabaseClient, bytes], T],
    ) -> T | None:
        """Make one request when the process's bound on database requests has a place for it.

        `read` gives what an answer with status 200 means. None: a GET for an unknown key.
        """
        limiter = this_process().limiter
        share = limiter.take_now(call.loop)
        if share is None:
            call.waits_for = "its turn at the database limiter"
            share = await limiter.take(call.loop)
        try:
            request = Request(method, f"{endpoint.path}/", body=body, safe=method == "GET")
            status, answer = await self._exchange(call, endpoint, request)
        finally:
            limiter.give_back(share)
        if status == 200:
            return read(self, answer)
        if status == 404 and method == "GET":
            if not answer.startswith(UNKNOWN):
                raise self._unexpected("'ERROR: Unknown key' or a value", answer)
            return None
        raise self._refused(what, status, answer)

    def _put(
        self, call: Call, value: dict[str, Any], confirmation: _Confirmation | None = None
    ) -> Awaitable[bool]:
        """Write. If an answer got lost, find out what became of the write before repeating it.

        Without a confirmation a write may be repeated: the database replaces, or knows it already.
        """
        what = f"the writing of a {value['type']}"
        body = json.dumps(value).encode()
        in_doubt = False

        async def attempt(call: Call, endpoint: Endpoint) -> bool:
            nonlocal in_doubt
            ask = partial(self._ask_in_turn, call, endpoint)
            if in_doubt and confirmation is not None:
                question = json.dumps(confirmation.question).encode()
                answer = await ask("GET", question, what, DatabaseClient._as_it_came)
                if confirmation.shows(answer):
                    return True
            try:
                answer = await ask("PUT", body, what, DatabaseClient._as_it_came)
            except ExchangeError:
                in_doubt = True
                raise
            self._require(OK, what, 200, answer or b"")
            return True

        return self._attempt(call, what, attempt)

    # What answers mean.

    def _as_it_came(self, body: bytes) -> bytes:
        return body

    def _checksum_in(self, body: bytes) -> str:
        text = body.decode("ascii", "replace")
        if not is_checksum(text):
            raise self._unexpected("a result checksum", body)
        return text

    def _json_in(self, kind: type[T], body: bytes) -> T:
        answer = json_of(body, kind)
        if answer is None:
            raise self._unexpected(f"a JSON {kind.__name__}", body)
        return answer

    def _object_in(self, body: bytes) -> dict[str, Any]:
        return self._json_in(dict, body)

    def _objects_in(self, body: bytes) -> list[dict[str, Any]]:
        answer = self._json_in(list, body)
        if not all(isinstance(each, dict) for each in answer):
            raise AnswerError(f"{self.describe()}: not all of {answer!r} are JSON objects")
        # As with reverse transformations.
        return list({json.dumps(each, sort_keys=True): each for each in answer}.values())

    def _checksums_in(self, body: bytes) -> list[str]:
        answer = self._json_in(list, body)
        if not all(is_checksum(each) for each in answer):
            raise AnswerError(
                f"{self.describe()}: not all of {answer!r} are checksums of transformations"
            )
        # A repeated write adds a row each time.
        return list(dict.fromkeys(answer))

    def _unexpected(self, wanted: str, body: bytes) -> AnswerError:
        return AnswerError(
            f"{self.describe()} answered {quote(body[:200])!r} where {wanted} was expected"
        )


class DatabaseLaunchedClient(DatabaseClient):
    """A result database that is launched on demand."""

    def __init__(self, placement: Placement, *, readonly: bool) -> None:
        """seamless_config.ConfigurationError: the cluster has no database."""
        self.placement = placement
        launch = placement.launch("database", mode="ro" if readonly else "rw")
        launch.configure()
        Client.__init__(self, LaunchedAddress(launch), readonly=readonly)
