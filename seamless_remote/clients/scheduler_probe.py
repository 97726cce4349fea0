"""Whether a Dask scheduler still listens: the evidence on which another one is launched."""

from __future__ import annotations

import enum
import socket

CONNECT_TIMEOUT = 10.0
"""Seconds that the scheduler may take to answer."""


class Evidence(enum.Enum):
    """What a scheduler's port says.

    Only GONE lets another scheduler be launched. A scheduler whose event loop is blocked by a large
    graph keeps its port open and says nothing for seconds or minutes: with it all its jobs would
    be lost. So a timeout is no evidence, and neither is a network that cannot be reached.
    """

    ANSWERS = "answers"
    SILENT = "silent"
    GONE = "gone"


def probe(hostname: str, port: int) -> tuple[Evidence, str]:
    """What the scheduler at this address says to a new connection, and the reason in words.

    Blocks, for `CONNECT_TIMEOUT` at most. A scheduler greets each connection first.
    `distributed.Client` awaits that greeting for ever, whatever its timeout (distributed 2026.8),
    where a scheduler accepts and then stays silent: so ask here before one is made.
    """
    try:
        with socket.create_connection((hostname, port), timeout=CONNECT_TIMEOUT) as connection:
            if connection.recv(1):
                return Evidence.ANSWERS, "it answers"
    except ConnectionError as exc:
        # Refused or reset: the port is closed.
        return Evidence.GONE, str(exc)
    except TimeoutError:
        return Evidence.SILENT, f"no answer within {CONNECT_TIMEOUT:g} s"
    except OSError as exc:
        return Evidence.SILENT, str(exc)
    # A tunnel accepts, and closes when nothing listens at its other end.
    return Evidence.GONE, "it closed the connection without a word"
