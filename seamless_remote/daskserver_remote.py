"""The Dask scheduler: launched, and handed to seamless-dask, at stage changes.

seamless-config activates this module. Dask and seamless-dask are imported when it is activated.
"""

from __future__ import annotations

import threading

import seamless

from .activation.dask_service import DaskService
from .clients.daskserver import DaskserverLaunchedHandle
from .launching.placement import Placement
from .nursery import process

__all__ = ["DISABLED", "DaskserverLaunchedHandle", "activate", "deactivate", "ensure_initialized"]

DISABLED = False
"""Set to True, it makes `activate()` do nothing."""

_handles: dict[Placement, DaskserverLaunchedHandle] = {}
_active: DaskserverLaunchedHandle | None = None


def activate(*, no_main: bool = False) -> None:
    """Launch the current cluster's Dask scheduler and hand it to seamless-dask.

    From then on the nursery watches over it, and has it launched again if it dies.

    Raises:
        ServiceError: it cannot be launched or reached; nothing is active then.
    """
    global _active
    if DISABLED or no_main:
        return
    if deactivate not in seamless._close_hooks:
        seamless.register_close_hook(deactivate)
        # Dask runs the callbacks of futures on an executor, which is shut down before the hooks of
        # `atexit` run, `seamless.close()` among them. These hooks come before that, the last one
        # that was registered first. There is no public way to come that early.
        threading._register_atexit(deactivate)  # type: ignore[attr-defined]
    placement = Placement.of()
    handle = _handles.setdefault(placement, DaskserverLaunchedHandle(placement))
    if handle is not _active:
        deactivate()
    try:
        handle.ensure_initialized()
    except BaseException:
        handle.close()
        raise
    _active = handle
    process.install(DaskService(handle))


def deactivate() -> None:
    """Close what `activate()` opened. Safe to call twice, and with nothing active.

    Where the scheduler is stays known, for the next stage that uses it.
    """
    global _active
    handle, _active = _active, None
    if handle is not None:
        process.install(DaskService(None))
        handle.close()


def ensure_initialized() -> None:
    """Bring the activated scheduler up again if it is not. ServiceError if that fails."""
    if _active is not None:
        _active.ensure_initialized()
