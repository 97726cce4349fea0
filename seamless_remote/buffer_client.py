"""The clients of buffer stores, under the name that the Seamless packages import."""

from __future__ import annotations

from .clients.buffer_store import BufferClient, BufferLaunchedClient

__all__ = ["BufferClient", "BufferLaunchedClient"]
