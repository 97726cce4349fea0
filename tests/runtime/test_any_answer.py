"""Whatever a service answers, and whatever it is asked to wait for: a right value or a typed error.

An untyped error would keep the next source from being asked.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from fault_proxy import FaultProxy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jobs import Submission
from loops import LoopThread
from made_up_service import MadeUpService
from many_calls import reads
from played_answers import PlayedAnswer
from registering import use_buffers, use_databases
from seamless import Buffer, Checksum
from services import Service

from seamless_remote import RemoteError, Settings, buffer_remote, database_remote, jobserver_remote
from seamless_remote.clients import circuit, jobserver, retry_policy, retrying
from seamless_remote.transport.messages import Headers

EXAMPLES = 60
ONE_TRY = Settings(max_tries=1, read_timeout=2.0)
CONTENT = b"what the buffer holds"
BUFFER = Buffer(CONTENT)
CHECKSUM = Checksum(BUFFER.get_checksum())
OTHER = Checksum("cd" * 32)
RECORD = {"schema_version": 1, "tf_checksum": CHECKSUM.hex(), "result_checksum": OTHER.hex()}


def is_checksums(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, Checksum) for each in value)


def is_lengths(value: Any) -> bool:
    (length,) = value
    return length is None or (type(length) is int and length >= 0)


def is_job_result(value: Any) -> bool:
    if isinstance(value, dict):
        result = value.get("result_checksum")
        return isinstance(result, Checksum) or isinstance(value["remote_job_written"], str)
    return isinstance(value, (Checksum, str))


def is_none_or(kind: type) -> Callable[[Any], bool]:
    return lambda value: value is None or isinstance(value, kind)


def is_bool(value: Any) -> bool:
    return isinstance(value, bool)


REQUESTS: dict[str, tuple[Callable[[], Awaitable[Any]], Callable[[Any], bool]]] = {
    "get_buffer": (
        lambda: buffer_remote.get_buffer(CHECKSUM),
        lambda value: value is None or value.content == CONTENT,
    ),
    "get_buffer_lengths": (lambda: buffer_remote.get_buffer_lengths([CHECKSUM]), is_lengths),
    "promise": (lambda: buffer_remote.promise(CHECKSUM), lambda value: value is None),
    "write_buffer": (lambda: buffer_remote.write_buffer(CHECKSUM, BUFFER), is_bool),
    "get_transformation_result": (
        lambda: database_remote.get_transformation_result(CHECKSUM),
        is_none_or(Checksum),
    ),
    "get_rev_transformations": (
        lambda: database_remote.get_rev_transformations(CHECKSUM),
        lambda value: value is None or is_checksums(value),
    ),
    "get_execution_record": (
        lambda: database_remote.get_execution_record(CHECKSUM),
        is_none_or(dict),
    ),
    "get_bucket_probe": (lambda: database_remote.get_bucket_probe("node", "x"), is_none_or(dict)),
    "get_irreproducible_records": (
        lambda: database_remote.get_irreproducible_records(CHECKSUM),
        is_none_or(list),
    ),
    "set_transformation_result": (
        lambda: database_remote.set_transformation_result(CHECKSUM, OTHER),
        is_bool,
    ),
    "set_execution_record": (
        lambda: database_remote.set_execution_record(CHECKSUM, OTHER, RECORD),
        is_bool,
    ),
    "undo_transformation_result": (
        lambda: database_remote.undo_transformation_result(CHECKSUM, OTHER),
        is_bool,
    ),
    "run_transformation": (
        lambda: Submission({"__language__": "python"}, CHECKSUM).run(),
        is_job_result,
    ),
    "transformation_status": (
        lambda: jobserver_remote.transformation_status_async(CHECKSUM),
        lambda value: isinstance(value, str),
    ),
    "cancel_transformation": (
        lambda: jobserver_remote.cancel_transformation_async(CHECKSUM),
        is_bool,
    ),
}

# 202 says of a write that another one is under way: it is asked for again, for ever.
STATUSES = st.sampled_from([200, 200, 200, 201, 204, 302, 400, 401, 404, 409, 418, 500, 599])

KEYS = st.sampled_from(
    ["result_checksum", "remote_job_written", "status", "canceled", "checksum", "result", ""]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([CHECKSUM.hex(), "running", "canceled", 10**400, "\ud800"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)
BODIES = st.one_of(
    st.binary(max_size=80),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.sampled_from(
        [
            CHECKSUM.hex().encode(),
            CONTENT,
            b"Transformation was canceled",
            b"[" * 100_000,
            b"9" * 100_000,
            b"\xff\xfe[\x00]\x00",
            b'{"a":1,"a":2}',
        ]
    ),
    # As deep as it can just be parsed, or just not.
    st.integers(1, 2000).map(lambda depth: b"[" * depth + b"]" * depth),
    st.integers(1, 2000).map(lambda depth: b'[{"a":' * depth + b"1" + b"}]" * depth),
    st.integers(1, 2000).map(lambda depth: b'{"a":[' * depth + b"]}" * depth),
)


class AnsweringService:
    """Answers everything but pings in the same way, which can be changed."""

    def __init__(self) -> None:
        self.status, self.body = 200, b""
        self.asked = 0
        self._service = MadeUpService(self._answer)
        self.url, self.close = self._service.url, self._service.close

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if path == "/healthcheck":
            return 200, b"OK"
        self.asked += 1
        return self.status, b"" if self.status == 204 else self.body


@pytest.fixture
def answering(
    fresh_remote: None,
    hosted_settings: Callable[[Settings], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Iterator[AnsweringService]:
    """The only service of each kind."""
    caplog.set_level("CRITICAL", "seamless_remote")
    hosted_settings(ONE_TRY)
    # It is asked again at once, however often it has failed.
    monkeypatch.setattr(circuit, "OPENS_AFTER", math.inf)
    monkeypatch.setattr(retrying, "PATIENCE", 0.0)
    monkeypatch.setattr(jobserver, "SHORTEST_WATCH_INTERVAL", 0.001)
    monkeypatch.setattr(jobserver, "LONGEST_WATCH_INTERVAL", 0.001)
    monkeypatch.setattr(retry_policy, "pause", lambda *args, **options: 0.0)
    service = AnsweringService()
    try:
        use_buffers(service)
        use_databases(service)
        jobserver_remote.define_extern_client("answering", "jobserver", url=service.url)
        jobserver_remote.activate(no_main=True, extern_clients=["answering"])
        yield service
    finally:
        service.close()


@pytest.mark.parametrize("request_", REQUESTS)
def test_any_answer_to_any_request_is_a_right_value_or_a_typed_error(
    request_: str, answering: AnsweringService, loop_threads: Callable[[str], LoopThread]
) -> None:
    call, is_right = REQUESTS[request_]
    loop = loop_threads("asyncio")

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
    )
    @given(status=STATUSES, body=BODIES)
    def check(status: int, body: bytes) -> None:
        answering.status, answering.body = status, body
        with contextlib.suppress(RemoteError):
            value = loop.run(call)
            assert is_right(value), value

    check()
    assert answering.asked >= EXAMPLES


@settings(max_examples=300, deadline=None, database=None)
@given(text=st.one_of(st.binary(max_size=40), st.text(max_size=40).map(lambda t: t.encode())))
@example(text=b"Thu, 01 Jan 99999999999999999999 00:00:00 GMT")
@example(text=b"Mon, 01 Jan 0000 00:00:00 GMT")
@example(text=b"01 Jan 2030 99:99:99 -9999")
@example(text=b"9" * 400)
@example(text=b"\xb2")
@example(text=b"nan")
@example(text=b"-1")
@example(text=b"1e3")
@example(text=b"")
def test_any_retry_after_is_a_number_of_seconds_or_none(text: bytes) -> None:
    found = retry_policy.retry_after_seconds(Headers([(b"Retry-After", text)]), time.time())
    assert found is None or found >= 0.0


@pytest.mark.parametrize(
    "text", [b"Thu, 01 Jan 99999999999999999999 00:00:00 GMT", b"\xff\xfe", b"soon", b"-3"]
)
def test_an_odd_retry_after_keeps_no_next_source_from_being_asked(
    text: bytes,
    fresh_remote: None,
    quick_retries: None,
    shared_hashserver: Service,
    faulty: Callable[[Service], FaultProxy],
    loop_threads: Callable[[str], LoopThread],
) -> None:
    between = faulty(shared_hashserver)
    answer = b"HTTP/1.1 503 No\r\nRetry-After: %b\r\nContent-Length: 0\r\n\r\n" % text
    use_buffers(between, shared_hashserver)
    (read,) = reads(shared_hashserver.directory, 1)
    with between.play(PlayedAnswer("busy", lambda: [answer], status=503)):
        loop_threads("trio").run(read)
    assert len(between.requests()) == Settings().max_tries
