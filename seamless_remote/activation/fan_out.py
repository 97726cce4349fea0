"""Asking several clients for the same: one after another until one knows, or all at once."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import anyio

from ..errors import RemoteError
from ..nursery.calls import Call

logger = logging.getLogger(__name__)

C = TypeVar("C")
T = TypeVar("T")


def first_known(
    call: Call, clients: Sequence[C], ask: Callable[..., Awaitable[T | None]], *args: Any
) -> Awaitable[T | None]:
    """The first answer of `ask(client, call, *args)` that is not None; None if nobody knows.

    If no client knows and at least one failed, raise the first failure: a ServiceError,
    RefusedError or AnswerError.
    """
    # Nearly always there is one: it needs no frame of its own under each call that waits.
    if len(clients) == 1:
        return ask(clients[0], call, *args)
    return _first_of_several(call, clients, ask, args)


async def _first_of_several(
    call: Call,
    clients: Sequence[C],
    ask: Callable[..., Awaitable[T | None]],
    args: tuple[Any, ...],
) -> T | None:
    failure: RemoteError | None = None
    for client in clients:
        try:
            answer = await ask(client, call, *args)
        except RemoteError as exc:
            logger.info("%s", exc)
            failure = failure or exc
        else:
            if answer is not None:
                return answer
    if failure is not None:
        raise failure
    return None


async def at_every(
    call: Call, clients: Sequence[C], do: Callable[..., Awaitable[T]], *args: Any
) -> list[T]:
    """Await `do(client, call, *args)` for all at once; the outcomes of those that succeeded.

    All are tried to their end. If some fail, their failures are logged; if all fail, the first
    failure is raised. So is any error that is no RemoteError.
    """
    if len(clients) == 1:
        return [await do(clients[0], call, *args)]
    outcomes: list[T] = []
    failures: list[RemoteError] = []
    faults: list[Exception] = []

    async def attempt(client: C) -> None:
        try:
            outcomes.append(await do(client, call, *args))
        except RemoteError as exc:
            failures.append(exc)
        except Exception as exc:
            faults.append(exc)

    async with anyio.create_task_group() as task_group:
        for client in clients:
            task_group.start_soon(attempt, client)
    if faults or not outcomes:
        raise [*faults, *failures][0]
    for failure in failures:
        logger.error("%s (it succeeded elsewhere)", failure)
    return outcomes
