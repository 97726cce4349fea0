"""What a jobserver's answer to a submission means (read off seamless-jobserver 0.3.0)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seamless import Checksum

from ..checksums import is_checksum
from ..errors import (
    AnswerError,
    ExchangeError,
    RefusedError,
    TransformationCanceledError,
    TransformationError,
)
from ..transport.messages import Response
from .answers import json_of
from .base import ANSWER_LIMIT, quote, shortened

TEXT_LIMIT = 4 * 1024 * 1024
"""The longest error text, in bytes, that is kept whole; of a longer one, both ends are."""

READ_LIMIT = 1024 * 1024 * 1024
"""Bytes after which even a long text is not read on: it may have no end."""

GATEWAY_STATUSES = (502, 503, 504)
"""Answers of something between here and the jobserver: they say nothing about the job."""

CANCELED_TEXT = "Transformation was canceled"

_PIECE = 16384
_RECORD_KEYS = ("record_runtime", "probe_context", "compilation_context", "job_validation")


async def read_answer(response: Response, what: str, server: str) -> Any:
    """Read the answer to a submission, and give the result that it brings.

    A dict with `result_checksum` (a Checksum) or `remote_job_written`, and `record_runtime`,
    `probe_context`, `compilation_context`, `job_validation` (None if not sent). An older server's
    bare checksum comes out as a Checksum, its remote-job text as that text. `what` names the job
    and `server` the jobserver in errors.

    Memory stays bounded, however long the answer is. A status says how the job has ended, whatever
    becomes of the body after it; only a result whose body breaks off is lost.

    Raises:
        TransformationError: the user's code failed, with the server's text (both ends of it, if it
            is longer than `TEXT_LIMIT`).
        TransformationCanceledError: the job was canceled at the server.
        RefusedError: the server refuses it.
        AnswerError: the job has ended well, and its answer is too long, or makes no sense.
        ExchangeError: the answer was lost; the job may have ended.
    """
    status = response.status
    if status in GATEWAY_STATUSES:
        raise ExchangeError(f"a gateway answered {status}: {shortened(await _ends(response))}")
    if status >= 500:
        raise TransformationError(await _ends(response))
    if status != 200:
        text = shortened(await _ends(response))
        if status == 409 and "cancel" in text.lower():
            raise TransformationCanceledError(CANCELED_TEXT)
        raise RefusedError(
            f"{server} refused {what} with {status}: {text}", status=status, text=text
        )
    body = await _whole(response, what, server)
    return _result(body, what, server)


def result_of(checksum: Checksum) -> dict[str, Any]:
    """An answer's form for a result of which nothing but the checksum is known."""
    return {"result_checksum": checksum, **dict.fromkeys(_RECORD_KEYS)}


def _result(body: bytes, what: str, server: str) -> Any:
    text = _text(body)
    if text == CANCELED_TEXT:
        raise TransformationCanceledError(CANCELED_TEXT)
    if is_checksum(text):
        return Checksum(text)
    if _is_remote_job(text):
        return text
    answer: Mapping[str, Any] = json_of(body, dict) or {}
    result = answer.get("result_checksum")
    if is_checksum(result):
        return {
            "result_checksum": Checksum(result),
            **{key: answer.get(key) for key in _RECORD_KEYS},
        }
    if _is_remote_job(answer.get("remote_job_written")):
        return {
            "remote_job_written": answer["remote_job_written"],
            "record_runtime": answer.get("record_runtime"),
        }
    raise AnswerError(
        f"{server} answered {what} with {quote(body)!r}, which is neither a result nor an error"
    )


async def _whole(response: Response, what: str, server: str) -> bytes:
    """The body of an answer that says that the job has ended well."""
    body = bytearray()
    room = memoryview(bytearray(_PIECE))
    while count := await response.fill(room):
        body += room[:count]
        if len(body) > ANSWER_LIMIT:
            raise AnswerError(
                f"{server} has run {what}, and answered with more than {ANSWER_LIMIT} bytes, where "
                f"a checksum and a record are due: {quote(bytes(body[:_PIECE]))!r}"
            )
    return bytes(body)


async def _ends(response: Response) -> str:
    """The text of an answer whose status says enough: whole, or both ends of a long one.

    If it breaks off, what has come.
    """
    kept, left_out, half = bytearray(), 0, TEXT_LIMIT // 2
    room = memoryview(bytearray(_PIECE))
    note = ""
    try:
        while left_out < READ_LIMIT and (count := await response.fill(room)):
            kept += room[:count]
            if len(kept) > TEXT_LIMIT + half:  # seldom: it moves half of the text
                left_out += len(kept) - TEXT_LIMIT
                del kept[half : len(kept) - half]
        if left_out >= READ_LIMIT:
            note = "\n[the text goes on; the rest was not read]"
    except ExchangeError as exc:
        note = f"\n[the rest of this text was lost: {exc}]"
    if left_out or len(kept) > TEXT_LIMIT:
        left_out += len(kept) - TEXT_LIMIT
        beginning, end = _text(kept[:half]), _text(kept[-half:])
        return f"{beginning}\n[{left_out} bytes of this text are left out here]\n{end}{note}"
    return _text(kept) + note


def _text(content: bytes | bytearray) -> str:
    return content.decode("utf-8", "backslashreplace")


def _is_remote_job(text: object) -> bool:
    if not isinstance(text, str):
        return False
    from seamless_transformer.remote_job import parse_remote_job_written

    return parse_remote_job_written(text) is not None
