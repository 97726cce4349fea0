"""seamless-remote: the client runtime of Seamless, one remote nursery on asyncio or trio.

Importing this starts nothing, and loads what it needs when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import (
    AnswerError,
    ClientRestartRequiredError,
    ConnectError,
    DamagedBufferError,
    ExchangeError,
    LaunchError,
    NurseryClosedError,
    NurseryOpenError,
    OwnLimitError,
    ProtocolError,
    RefusedError,
    RemoteError,
    ServiceError,
    ServiceTimeout,
    TransformationCanceledError,
    TransformationError,
    WrongBytesError,
)
from .settings import Settings

if TYPE_CHECKING:
    from .nursery.nursery import RemoteNursery
    from .nursery.process import current_nursery, open_nursery

__all__ = [
    "AnswerError",
    "ClientRestartRequiredError",
    "ConnectError",
    "DamagedBufferError",
    "ExchangeError",
    "LaunchError",
    "NurseryClosedError",
    "NurseryOpenError",
    "OwnLimitError",
    "ProtocolError",
    "RefusedError",
    "RemoteError",
    "RemoteNursery",
    "ServiceError",
    "ServiceTimeout",
    "Settings",
    "TransformationCanceledError",
    "TransformationError",
    "WrongBytesError",
    "__version__",
    "current_nursery",
    "open_nursery",
]

__version__ = "0.6.0"

_LAZY = {
    "RemoteNursery": "nursery.nursery",
    "current_nursery": "nursery.process",
    "open_nursery": "nursery.process",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
