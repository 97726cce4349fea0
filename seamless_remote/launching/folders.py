"""The folders that a launched service works on, by its launch dict and by its status file.

remote-http-launcher knows a service by its key, made of the cluster, the project and the stage. A
cluster's folders may be others in the next program: SEAMLESS_CACHE is one cluster wherever it
points to, and clusters.yaml can be edited. The service that runs under the key then serves other
folders than it is wanted for, so another one is launched under a key of its own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

Folders = tuple[str, ...]
"""The working directory, then those of the stores that a jobserver writes to."""


class OtherFolderError(RuntimeError):
    """The service that runs serves another folder than was asked for."""


def wanted_folders(launch_dict: dict[str, Any]) -> Folders:
    """The folders that a service is to work on, as they are written in its launch dict."""
    stores = _written_stores(launch_dict.get("file_parameters"))
    return (launch_dict["workdir"], *stores)


def served_folders(status: dict[str, Any]) -> Folders | None:
    """The folders that a service works on, by its status file; None if that does not tell."""
    workdir = status.get("workdir")
    if not isinstance(workdir, str):
        return None
    return (workdir, *_written_stores(status.get("parameters")))


def are_same(served: Folders | None, wanted: Folders, is_same: Callable[[str, str], bool]) -> bool:
    """Whether a service that serves these folders will do. True where nothing is known of it."""
    if served is None:
        return True
    # A jobserver without stores is one whose status file does not tell them.
    known = len(served) in (1, len(wanted))
    return known and all(is_same(*each) for each in zip(served, wanted, strict=False))


def is_same_here(one: str, other: str) -> bool:
    """Whether two paths lead to one folder on this machine, however they are written."""
    one, other = _real(one), _real(other)
    try:
        return one == other or os.path.samefile(one, other)
    except OSError:
        return False


def is_written_the_same(one: str, other: str) -> bool:
    """Whether two paths are one folder on any machine; False as well where only that can tell."""
    return os.path.normpath(one) == os.path.normpath(other)


def with_own_key(launch_dict: dict[str, Any], key: str, folders: Sequence[str]) -> dict[str, Any]:
    """The launch dict of a service that shares its `key` with one that serves other folders.

    seamless-config's tools read the key: they take what stands after `--` for a subproject.
    """
    digest = hashlib.sha256("\0".join(folders).encode()).hexdigest()[:12]
    own = {**launch_dict, "key": f"{key}--folder-{digest}"}
    for name in ("log_file", "debug_log_file"):
        if isinstance(own.get(name), str):
            own[name] = f"{own[name].removesuffix('.log')}.folder-{digest}.log"
    return own


def with_own_key_there(launch_dict: dict[str, Any], key: str) -> dict[str, Any]:
    """The same for a service of another machine, which alone could tell where a link leads to."""
    written = [os.path.normpath(each) for each in wanted_folders(launch_dict)]
    return with_own_key(launch_dict, key, written)


def with_own_key_here(launch_dict: dict[str, Any], key: str) -> dict[str, Any]:
    """The same for a service of this machine: one key, however the folder is written."""
    return with_own_key(launch_dict, key, [_real(each) for each in wanted_folders(launch_dict)])


def named(folders: Folders | None) -> str:
    """The folders for a message."""
    return " and ".join(folders or ("an unknown folder",))


def _written_stores(parameters: object) -> list[str]:
    """The folders of the hashservers that a jobserver was given to write to."""
    buffers = parameters.get("buffer") if isinstance(parameters, dict) else None
    if not isinstance(buffers, list):
        return []
    found = (each.get("remote_directory") for each in buffers if isinstance(each, dict))
    return [each for each in found if isinstance(each, str)]


def _real(path: str) -> str:
    return os.path.realpath(os.path.expanduser(path))
