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
from ..errors import AnswerError, ExchangeError
from ..launching.placement import Placement
from ..nursery.calls import Call
from ..nursery.process import this_process
from ..transport.messages import Request
from .answers import json_of
from .base import Client, quote
from .endpoint import Endpoint, KnownAddress, LaunchedAddress

T = TypeVar("T")

DIFFERENT_METADATA = "already exists with different metadata"
"""What the database's 409 says if it holds another execution record."""


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
        return self._look_up(
            call, {"type": "transformation", "checksum": tf_checksum}, self._checksum_in
        )

    def get_rev_transformations(self, call: Call, result: str) -> Awaitable[list[str] | None]:
        """The transformations that have this result: each once, in the order of their recording."""

        def read(body: bytes) -> list[str]:
            answer = self._json_in(list, body)
            if not all(is_checksum(each) for each in answer):
                raise AnswerError(
                    f"{self.describe()}: not all of {answer!r} are checksums of transformations"
                )
            # A repeated write adds a row each time.
            return list(dict.fromkeys(answer))

        return self._look_up(call, {"type": "rev_transformations", "checksum": result}, read)

    def get_execution_record(
        self, call: Call, tf_checksum: str
    ) -> Awaitable[dict[str, Any] | None]:
        """The execution record of a transformation."""
        question = {"type": "metadata", "checksum": tf_checksum}
        return self._look_up(call, question, partial(self._json_in, dict))

    def get_bucket_probe(
        self, call: Call, bucket_kind: str, label: str
    ) -> Awaitable[dict[str, Any] | None]:
        """The last probe of a bucket."""
        question = {"type": "bucket_probe", "bucket_kind": bucket_kind, "label": label}
        return self._look_up(call, question, partial(self._json_in, dict))

    def get_irreproducible_records(
        self, call: Call, tf_checksum: str, result: str | None
    ) -> Awaitable[list[dict[str, Any]] | None]:
        """The contested results of a transformation (only `result`, if given)."""

        def read(body: bytes) -> list[dict[str, Any]]:
            answer = self._json_in(list, body)
            if not all(isinstance(each, dict) for each in answer):
                raise AnswerError(f"{self.describe()}: not all of {answer!r} are JSON objects")
            # As with reverse transformations.
            return list({json.dumps(each, sort_keys=True): each for each in answer}.values())

        question = {"type": "irreproducible", "checksum": tf_checksum}
        if result is not None:
            question["result"] = result
        return self._look_up(call, question, read)

    # Writes.

    def set_result(self, call: Call, tf_checksum: str, result: str) -> Awaitable[bool]:
        """Record a transformation's result, in place of an earlier one; True when it is written."""
        confirmation = _Confirmation(
            {"type": "transformation", "checksum": tf_checksum},
            lambda answer: answer == result.encode(),
        )
        value = {"type": "transformation", "checksum": tf_checksum, "value": result}
        return self._put(call, value, confirmation)

    def set_execution_record(
        self, call: Call, tf_checksum: str, result: str, record: dict[str, Any]
    ) -> Awaitable[bool]:
        """Record how a transformation was executed.

        True when it is written; False if the database holds another record for it already.
        """
        value = {"type": "metadata", "checksum": tf_checksum, "result": result, "value": record}
        return self._put(call, value, conflict=DIFFERENT_METADATA)

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
        before = await self._look_up(call, question, bytes)
        confirmation = _Confirmation(question, lambda answer: answer not in (None, before))
        return await self._put(call, question, confirmation, unknown_is_false=True)

    # Few coroutines between a call and its turn at the limiter: thousands of calls may wait there.

    def _look_up(
        self, call: Call, question: dict[str, Any], read: Callable[[bytes], T]
    ) -> Awaitable[T | None]:
        """Ask, and `read` the answer; None for an unknown key."""
        what = f"the look-up of a {question['type']}"
        found = partial(self._found, what, read)
        return self._attempt(call, what, self._ask_in_turn, "GET", question, found)

    def _found(self, what: str, read: Callable[[bytes], T], status: int, body: bytes) -> T | None:
        if status == 200:
            return read(body)
        if status == 404:
            return None
        raise self._refused(what, status, body)

    async def _ask_in_turn(
        self,
        call: Call,
        endpoint: Endpoint,
        method: str,
        value: dict[str, Any],
        outcome: Callable[[int, bytes], T],
    ) -> T:
        """Make one request when the process's bound on database requests has a place for it.

        Gives the `outcome` of the answer's status and body.
        """
        limiter = this_process().limiter
        share = limiter.take_now(call.loop)
        if share is None:
            call.waits_for = "its turn at the database limiter"
            share = await limiter.take(call.loop)
        try:
            body = json.dumps(value).encode()
            request = Request(method, f"{endpoint.path}/", body=body, safe=method == "GET")
            status, body = await self._exchange(call, endpoint, request)
        finally:
            limiter.give_back(share)
        return outcome(status, body)

    def _put(
        self,
        call: Call,
        value: dict[str, Any],
        confirmation: _Confirmation | None = None,
        *,
        conflict: str | None = None,
        unknown_is_false: bool = False,
    ) -> Awaitable[bool]:
        """Write. If an answer got lost, find out what became of the write before repeating it.

        Without a confirmation a write may be repeated: the database replaces, or knows it already.
        """
        what = f"the writing of a {value['type']}"
        in_doubt = False

        def written(status: int, body: bytes) -> bool:
            if status == 200:
                return True
            refusal = self._refused(what, status, body)
            if status == 409 and conflict is not None and conflict in refusal.text:
                return False
            if status == 404 and unknown_is_false:
                return False
            raise refusal

        async def attempt(call: Call, endpoint: Endpoint) -> bool:
            nonlocal in_doubt
            if in_doubt and confirmation is not None:
                found = partial(self._found, what, bytes)
                answer = await self._ask_in_turn(
                    call, endpoint, "GET", confirmation.question, found
                )
                if confirmation.shows(answer):
                    return True
            try:
                return await self._ask_in_turn(call, endpoint, "PUT", value, written)
            except ExchangeError:
                in_doubt = True
                raise

        return self._attempt(call, what, attempt)

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
