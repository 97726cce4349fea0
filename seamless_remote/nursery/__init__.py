"""The remote nursery: scopes, supervision, hops between loops, limiter. Knows nothing of HTTP."""

from .process import call, call_blocking, current_nursery, open_nursery
from .scope import Scope
from .service import Service

__all__ = ["Scope", "Service", "call", "call_blocking", "current_nursery", "open_nursery"]
