"""HTTP/1.1 for the clients above: connections, pools, bodies and their decoding.

Knows nothing of Seamless; runs on asyncio and on trio.
"""

from __future__ import annotations

from ..buffers.decoding import Decoder, Sink, decoder_for, suffix_encoding
from .messages import Headers, Origin, Request, Response, StreamBody, parse_url
from .pool import Pool, PoolStatistics
from ..clients.retry_policy import is_transient_error, is_transient_status, pause, retry_after_seconds
from .transport import Transport, TransportStatistics
from .socket_io import abandon_after_fork

__all__ = [
    "Decoder",
    "Headers",
    "Origin",
    "Pool",
    "PoolStatistics",
    "Request",
    "Response",
    "Sink",
    "StreamBody",
    "Transport",
    "TransportStatistics",
    "abandon_after_fork",
    "decoder_for",
    "is_transient_error",
    "is_transient_status",
    "parse_url",
    "pause",
    "retry_after_seconds",
    "suffix_encoding",
]
