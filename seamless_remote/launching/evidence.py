"""Whether a service listens at an address: asked from a plain thread, by whoever launches it."""

from __future__ import annotations

import enum
import http.client
import socket


class Evidence(enum.Enum):
    """What the port of a service says.

    Only GONE lets another one be launched in its place. A service whose event loop is blocked keeps
    its port open and says nothing for seconds or minutes: with it all its jobs would be lost. So a
    timeout is no evidence, and neither is a network that cannot be reached.
    """

    ANSWERS = "answers"
    SILENT = "silent"
    GONE = "gone"


def ask(host: str, port: int, target: str, timeout: float) -> Evidence:
    """What is said to `GET target`, where each piece may take `timeout` seconds. Blocks.

    Any answer but a 2xx is that of somebody else, or of a service that ends.
    """
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", target)
        well = 200 <= connection.getresponse().status < 300
        return Evidence.ANSWERS if well else Evidence.GONE
    except (ConnectionError, http.client.HTTPException):
        # Refused, reset, or closed: a tunnel accepts, and closes when nothing listens behind it.
        return Evidence.GONE
    except OSError:
        return Evidence.SILENT
    finally:
        connection.close()


def await_greeting(host: str, port: int, timeout: float) -> tuple[Evidence, str]:
    """What a server that speaks first, as a Dask scheduler does, says to a new connection, and the
    reason in words. Blocks, for `timeout` seconds at most."""
    try:
        with socket.create_connection((host, port), timeout=timeout) as connection:
            if connection.recv(1):
                return Evidence.ANSWERS, "it answers"
    except ConnectionError as exc:
        # Refused or reset: the port is closed.
        return Evidence.GONE, str(exc)
    except TimeoutError:
        return Evidence.SILENT, f"no answer within {timeout:g} s"
    except OSError as exc:
        return Evidence.SILENT, str(exc)
    # A tunnel accepts, and closes when nothing listens at its other end.
    return Evidence.GONE, "it closed the connection without a word"
