"""The client of the result database: what to ask it, and what its answers mean.

The requests and answers were read off seamless-database 2.1.0 (protocol 2.2): one URL, a JSON
object in the body of GET as of PUT, 404 for a key that it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from .endpoint import Endpoint, KnownAddress, LaunchedAddress
from ..checksums import is_checksum
from .base import Client, quote
from ..errors import AnswerError, ExchangeError
from .answers import json_of
from ..nursery.scope import Scope
from ..launching.placement import Placement
from ..transport.messages import Request

T = TypeVar("T")

DIFFERENT_METADATA = "already exists with different metadata"
"""What the database's 409 says where it holds another execution record."""


@dataclass(frozen=True, slots=True)
class _Confirmation:
    """How to find out whether a write whose answer got lost has taken effect.

    `shows` is given the answer to `question`: None for an unknown key.
    """

    question: dict[str, Any]
    shows: Callable[[bytes | None], bool]


class DatabaseClient(Client):
    """A result database at a known URL. Checksums go in and come out as 64 hex digits.

    Reads give None where the database does not know the key. All raise ServiceError where it cannot
    be reached, RefusedError where it refuses, AnswerError where its answer makes no sense.
    """

    service = "database"

    def __init__(self, *, readonly: bool = True, url: str) -> None:
        """ValueError for a malformed `url`."""
        super().__init__(KnownAddress(url), readonly=readonly)

    # Reads.

    async def get_result(self, scope: Scope, tf_checksum: str) -> str | None:
        """The checksum of a transformation's result."""
        body = await self._get(scope, {"type": "transformation", "checksum": tf_checksum})
        if body is None:
            return None
        text = body.decode("ascii", "replace")
        if not is_checksum(text):
            raise self._unexpected("a result checksum", body)
        return text

    async def get_rev_transformations(self, scope: Scope, result: str) -> list[str] | None:
        """The transformations that have this result: each once, in the order of their recording."""
        answer = await self._get_json(
            scope, {"type": "rev_transformations", "checksum": result}, list
        )
        if answer is None:
            return None
        if not all(is_checksum(each) for each in answer):
            raise AnswerError(
                f"database at {self.url}: not all of {answer!r} are checksums of transformations"
            )
        # A repeated write adds a row each time.
        return list(dict.fromkeys(answer))

    async def get_execution_record(self, scope: Scope, tf_checksum: str) -> dict[str, Any] | None:
        """The execution record of a transformation."""
        return await self._get_json(scope, {"type": "metadata", "checksum": tf_checksum}, dict)

    async def get_bucket_probe(
        self, scope: Scope, bucket_kind: str, label: str
    ) -> dict[str, Any] | None:
        """The last probe of a bucket."""
        question = {"type": "bucket_probe", "bucket_kind": bucket_kind, "label": label}
        return await self._get_json(scope, question, dict)

    async def get_irreproducible_records(
        self, scope: Scope, tf_checksum: str, result: str | None
    ) -> list[dict[str, Any]] | None:
        """The contested results of a transformation (only `result`, if given)."""
        question = {"type": "irreproducible", "checksum": tf_checksum}
        if result is not None:
            question["result"] = result
        answer = await self._get_json(scope, question, list)
        if answer is not None and not all(isinstance(each, dict) for each in answer):
            raise AnswerError(f"database at {self.url}: not all of {answer!r} are JSON objects")
        # As with reverse transformations.
        return answer and [each for i, each in enumerate(answer) if each not in answer[:i]]

    # Writes.

    async def set_result(self, scope: Scope, tf_checksum: str, result: str) -> bool:
        """Record a transformation's result, in place of an earlier one; True when it is written."""

        confirmation = _Confirmation(
            {"type": "transformation", "checksum": tf_checksum},
            lambda answer: answer == result.encode(),
        )
        value = {"type": "transformation", "checksum": tf_checksum, "value": result}
        return await self._put(scope, value, confirmation)

    async def set_execution_record(
        self, scope: Scope, tf_checksum: str, result: str, record: dict[str, Any]
    ) -> bool:
        """Record how a transformation was executed.

        True when it is written; False where the database holds another record for it already.
        """
        value = {"type": "metadata", "checksum": tf_checksum, "result": result, "value": record}
        return await self._put(scope, value, conflict=DIFFERENT_METADATA)

    async def set_bucket_probe(
        self,
        scope: Scope,
        bucket_kind: str,
        label: str,
        bucket_checksum: str,
        freshness_tokens: dict[str, Any],
        captured_at: str,
    ) -> bool:
        """Record a probe of a bucket, in place of an earlier one; True when it is written."""
        value = {
            "type": "bucket_probe",
            "bucket_kind": bucket_kind,
            "label": label,
            "bucket_checksum": bucket_checksum,
            "freshness_tokens": freshness_tokens,
            "captured_at": captured_at,
        }
        return await self._put(scope, value)

    async def undo_result(self, scope: Scope, tf_checksum: str, result: str) -> bool:
        """Contest a result and remove it; False where the transformation has another result."""
        question = {"type": "irreproducible", "checksum": tf_checksum, "result": result}
        before = await self._get(scope, question)
        confirmation = _Confirmation(question, lambda answer: answer not in (None, before))
        return await self._put(scope, question, confirmation, unknown_is_false=True)

    def _get(self, scope: Scope, question: dict[str, Any]) -> Awaitable[bytes | None]:
        what = f"the look-up of a {question['type']}"
        return self._attempt(scope, what, self._get_once, question)

    async def _get_once(
        self, scope: Scope, endpoint: Endpoint, question: dict[str, Any]
    ) -> bytes | None:
        # While it waits for its turn, a look-up is little more than its question.
        async with scope.limiter:
            body = json.dumps(question).encode()
            request = Request("GET", f"{endpoint.path}/", body=body, safe=True)
            status, answer = await self._exchange(scope, endpoint, request)
        if status == 200:
            return answer
        if status == 404:
            return None
        raise self._refused(f"the look-up of a {question['type']}", status, answer)

    async def _get_json(self, scope: Scope, question: dict[str, Any], kind: type[T]) -> T | None:
        body = await self._get(scope, question)
        if body is None:
            return None
        answer = json_of(body, kind)
        if answer is None:
            raise self._unexpected(f"a JSON {kind.__name__}", body)
        return answer

    async def _put(
        self,
        scope: Scope,
        value: dict[str, Any],
        confirmation: _Confirmation | None = None,
        *,
        conflict: str | None = None,
        unknown_is_false: bool = False,
    ) -> bool:
        """Write; where an answer got lost, it is found out what became of it before a repetition.

        Without a confirmation a write may be repeated: the database replaces, or knows it already.
        """
        what = f"the writing of a {value['type']}"
        body = json.dumps(value).encode()
        in_doubt = False

        async def attempt(scope: Scope, endpoint: Endpoint) -> bool:
            nonlocal in_doubt
            if in_doubt and confirmation is not None:
                answer = await self._get_once(scope, endpoint, confirmation.question)
                if confirmation.shows(answer):
                    return True
            request = Request("PUT", f"{endpoint.path}/", body=body)
            try:
                async with scope.limiter:
                    status, text = await self._exchange(scope, endpoint, request)
            except ExchangeError:
                in_doubt = True
                raise
            if status == 200:
                return True
            refusal = self._refused(what, status, text)
            if status == 409 and conflict is not None and conflict in refusal.text:
                return False
            if status == 404 and unknown_is_false:
                return False
            raise refusal

        return await self._attempt(scope, what, attempt)

    def _unexpected(self, wanted: str, body: bytes) -> AnswerError:
        return AnswerError(
            f"database at {self.url} answered {quote(body[:200])!r} where {wanted} was expected"
        )


class DatabaseLaunchedClient(DatabaseClient):
    """A result database that is launched on demand."""

    def __init__(self, placement: Placement, *, readonly: bool) -> None:
        """seamless_config.ConfigurationError: the cluster has no database."""
        self.placement = placement
        launch = placement.launch("database", mode="ro" if readonly else "rw")
        launch.configure()
        Client.__init__(self, LaunchedAddress(launch), readonly=readonly)
