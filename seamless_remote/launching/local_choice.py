"""Chooses the key under which a service of this machine is launched or found running.

Called under the lock of the launch dict's own key, which all launches of that key take, whatever
their folder. What is left of services that are gone is removed first: the launcher would take
whatever else answers at their ports by now for them.
"""

from __future__ import annotations

import logging
from typing import Any

from .client_record import ClientRecord
from .folders import (
    OtherFolderError,
    are_same,
    is_same_here,
    named,
    served_folders,
    wanted_folders,
    with_own_key_here,
)
from .status_file import StatusFile

logger = logging.getLogger(__name__)


def choose_here(launch_dict: dict[str, Any], common: StatusFile) -> StatusFile:
    """Put the right key into the launch dict; returns the status file of that. `common` is that of
    the key it has.

    It stays, unless a service of another folder runs under it, or one of this folder under the
    folder's own key. OtherFolderError: even the latter serves another folder by now.
    """
    own_dict = with_own_key_here(launch_dict, common.path.stem)
    own = StatusFile.of(own_dict)
    assert own is not None  # there is one where there is a common one
    _clear(common, launch_dict)
    _clear(own, own_dict)
    wanted = wanted_folders(launch_dict)
    if own.is_alive():
        served = served_folders(own.content())
        if not are_same(served, wanted, is_same_here):
            raise OtherFolderError(
                f"the service that was launched for {named(wanted)} serves {named(served)} by now, "
                f"for a link has changed: end it with `rhl-stop {own.path.stem}`"
            )
    elif common.is_alive():
        served = served_folders(common.content())
        if are_same(served, wanted, is_same_here):
            return common
        message = "%s serves %s, so another service is launched for %s: %s"
        logger.info(message, common.path.stem, named(served), named(wanted), own.path.stem)
    else:
        return common
    launch_dict.update(own_dict)
    return own


def _clear(file: StatusFile, launch_dict: dict[str, Any]) -> None:
    """Remove the status file of a service that is gone, and a record that is not of this service.

    The launcher believes either, as long as anything answers a healthcheck at its port.
    """
    if not file.is_alive():
        file.path.unlink(missing_ok=True)
    record = ClientRecord.of(launch_dict)
    content = record.content()
    if content is not None:
        running = file.running()
        if running is None or running.port != content["port"]:
            record.forget()
