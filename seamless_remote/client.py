"""The base of the clients, under the name that the Seamless packages import."""

from __future__ import annotations

from .clients.base import Client
from .errors import ClientRestartRequiredError
from .nursery.process import close as close_all_clients

__all__ = ["Client", "ClientRestartRequiredError", "close_all_clients"]
