"""Whether a Dask scheduler still listens: the evidence on which another one is launched."""

from __future__ import annotations

from ..launching.evidence import Evidence, await_greeting

CONNECT_TIMEOUT = 10.0
"""Seconds that the scheduler may take to answer."""

__all__ = ["CONNECT_TIMEOUT", "Evidence", "probe"]


def probe(hostname: str, port: int) -> tuple[Evidence, str]:
    """What the scheduler at this address says to a new connection, and the reason in words.

    Blocks, for `CONNECT_TIMEOUT` at most. A scheduler greets each connection first.
    `distributed.Client` awaits that greeting for ever, whatever its timeout (distributed 2026.8),
    where a scheduler accepts and then stays silent: so ask here before one is made.
    """
    return await_greeting(hostname, port, CONNECT_TIMEOUT)
