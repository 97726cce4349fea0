"""The clients of jobservers, under the name that the Seamless packages import."""

from __future__ import annotations

from .clients.jobserver import JobserverClient
from .clients.launched_jobserver import JobserverLaunchedClient

__all__ = ["JobserverClient", "JobserverLaunchedClient"]
