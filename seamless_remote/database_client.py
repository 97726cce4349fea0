"""The clients of result databases, under the name that the Seamless packages import."""

from __future__ import annotations

from .clients.database import DatabaseClient, DatabaseLaunchedClient

__all__ = ["DatabaseClient", "DatabaseLaunchedClient"]
