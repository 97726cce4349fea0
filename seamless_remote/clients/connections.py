"""The connections of this process, which its nursery looks after."""

from __future__ import annotations

import os

import anyio

from ..nursery.calls import Call
from ..nursery.process import adopt, is_attended
from ..transport.own_socket import abandon_after_fork
from ..transport.pool import PoolSnapshot
from ..transport.transport import Transport

UPKEEP_INTERVAL = 10.0
"""Seconds between two looks at idle connections."""


class Connections:
    """The process's transport, as a resource of the nursery (see `nursery.service.Resource`)."""

    def __init__(self) -> None:
        self.transport = Transport(is_attended)

    def __str__(self) -> str:
        return "idle connections"

    async def upkeep(self, call: Call) -> None:
        """Close connections that are idle for too long, until cancelled."""
        while True:
            await anyio.sleep(UPKEEP_INTERVAL)
            self.transport.expire(call.settings.idle_connection_lifetime)

    def let_go(self) -> None:
        """Close idle connections; those in use are closed when they are done with."""
        self.transport.close_idle()

    def snapshot(self) -> tuple[PoolSnapshot, ...]:
        """The pools as plain data."""
        return self.transport.snapshot()


connections = Connections()


def _after_fork_in_child() -> None:
    abandon_after_fork()
    connections.transport = Transport(is_attended)


adopt(connections)
os.register_at_fork(after_in_child=_after_fork_in_child)
