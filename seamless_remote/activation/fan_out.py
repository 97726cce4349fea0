"""Asking several clients for the same: one after another until one knows, or all at once."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import anyio

from ..clients.base import Client
from ..errors import RemoteError

logger = logging.getLogger(__name__)

C = TypeVar("C", bound=Client)
T = TypeVar("T")


async def first_known(
    clients: Sequence[C], ask: Callable[..., Awaitable[T | None]], *args: Any
) -> T | None:
    """The first answer of `ask(client, *args)` that is not None, in order; None where nobody knows.

    Where nobody knows, but not everybody gave an answer that makes sense, the first error is
    raised: a ServiceError, RefusedError or AnswerError.
    """
    failure: RemoteError | None = None
    for client in clients:
        try:
            answer = await ask(client, *args)
        except RemoteError as exc:
            logger.info("%s", exc)
            failure = failure or exc
        else:
            if answer is not None:
                return answer
    if failure is not None:
        raise failure
    return None


async def at_every(clients: Sequence[C], do: Callable[..., Awaitable[T]], *args: Any) -> list[T]:
    """Await `do(client, *args)` for all at once; the outcomes of those where it succeeded.

    All are tried to their end. Where one fails and another does not, the failure is logged; where
    all fail, the first failure is raised.
    """
    if len(clients) == 1:
        return [await do(clients[0], *args)]
    outcomes: list[T] = []
    failures: list[RemoteError] = []

    async def attempt(client: C) -> None:
        try:
            outcomes.append(await do(client, *args))
        except RemoteError as exc:
            failures.append(exc)

    async with anyio.create_task_group() as task_group:
        for client in clients:
            task_group.start_soon(attempt, client)
    if not outcomes:
        raise failures[0]
    for failure in failures:
        logger.error("%s (it succeeded elsewhere)", failure)
    return outcomes
