"""One healthcheck, made by whoever launches: before there is a client, and from a plain thread."""

from __future__ import annotations

import http.client
import socket


def is_healthy(host: str, port: int, target: str, timeout: float) -> bool:
    """Whether `GET target` at this address is answered with a 2xx, in pieces of `timeout` seconds.

    Blocks.
    """
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", target)
        return 200 <= connection.getresponse().status < 300
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def greets(host: str, port: int, timeout: float) -> bool:
    """Whether the server there speaks first, as a Dask scheduler does, in `timeout` seconds.

    Blocks.
    """
    try:
        with socket.create_connection((host, port), timeout=timeout) as connection:
            return bool(connection.recv(1))
    except OSError:
        return False
