"""The clients of one activation as a service of the nursery, which keeps their services alive."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import anyio

from ..clients.base import Client
from ..clients.connections import connections
from ..clients.frontends import in_effect
from ..nursery.calls import Call
from ..nursery.service import BackgroundTask, Service

TUNNEL_INTERVAL = 10.0
"""Seconds between two pings through a tunnel, at most: that its path is lost shows in silence only,
for TCP ends at this machine."""


class ClientSet(Service):
    """The clients of one activation. Their services end themselves after 600 s without a request.

    Each client is pinged in a task of its own: one that is silent delays no other.
    """

    def __init__(self, name: str, clients: Sequence[Client]) -> None:
        super().__init__(name)
        self.clients = tuple(clients)

    def tasks(self) -> Sequence[BackgroundTask]:
        return [
            BackgroundTask(
                f"keepalive of {self.name}, {client.service} {number}",
                partial(_keep_alive, client),
                client.health.mark_down,
            )
            for number, client in enumerate(self.clients, 1)
            if client.has_server
        ]

    def in_flight(self) -> int:
        return sum(client.in_flight for client in self.clients)

    def release(self, remaining: Collection[Service]) -> None:
        kept = [each for each in remaining if isinstance(each, ClientSet)]
        endpoints = (client.address.current() for each in kept for client in each.clients)
        connections.transport.release(
            {endpoint.origin for endpoint in endpoints if endpoint is not None}
        )

    def client_snapshots(self) -> tuple[Any, ...]:
        return tuple(client.snapshot() for client in self.clients)


async def _keep_alive(client: Client, call: Call) -> None:
    with in_effect(client.address):
        while True:
            await client.keep_alive(call)
            interval = call.settings.keepalive_interval
            endpoint = client.address.current()
            if endpoint is not None and endpoint.is_tunneled:
                interval = min(interval, TUNNEL_INTERVAL)
            await anyio.sleep(interval)
