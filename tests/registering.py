"""Putting clients of running services in effect, as seamless-config does it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Protocol

from seamless_remote import buffer_remote, database_remote


class HasUrl(Protocol):
    """A service, a proxy or a made-up service."""

    @property
    def url(self) -> str: ...


Source = HasUrl | Path | str
"""A service, a URL, or (for buffers) a folder."""

_numbers = itertools.count()


def use_buffers(*sources: Source, readonly: bool = False) -> None:
    """Make these the sources of buffers, in this order; servers are written to as well."""
    names = [f"buffers-{next(_numbers)}" for _ in sources]
    for name, source in zip(names, sources, strict=True):
        if isinstance(source, Path):
            buffer_remote.define_extern_client(name, "bufferfolder", directory=str(source))
        else:
            buffer_remote.define_extern_client(
                name, "hashserver", url=url_of(source), readonly=readonly
            )
    buffer_remote.activate(no_main=True, extern_clients=names)


def use_databases(*sources: Source, readonly: bool = False) -> None:
    """Make these the databases, in this order."""
    names = [f"database-{next(_numbers)}" for _ in sources]
    for name, source in zip(names, sources, strict=True):
        database_remote.define_extern_client(
            name, "database", url=url_of(source), readonly=readonly
        )
    database_remote.activate(no_main=True, extern_clients=names)


def url_of(source: Source) -> str:
    return str(getattr(source, "url", source))
