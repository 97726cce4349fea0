"""The errors of seamless-remote, one small hierarchy.

What concerns reaching a service is a `ConnectionError` as well, because the Seamless packages treat
`OSError`, `ConnectionError` and `TimeoutError` as "the service is away" and anything else as final.
"""

from __future__ import annotations


class RemoteError(Exception):
    """The base of every error that seamless-remote raises by a name of its own."""


class ServiceError(RemoteError, ConnectionError):
    """A service could not be reached, or broke off before it had answered."""


class ConnectError(ServiceError):
    """No connection came about: the request was never sent."""


class ExchangeError(ServiceError):
    """A connection broke while a request was under way: whether the service acted is not known."""


class ProtocolError(ExchangeError):
    """What came back is not an HTTP/1.1 answer of the announced shape."""


class ServiceTimeout(ExchangeError, TimeoutError):
    """A service stayed silent for longer than its timeout."""


class LaunchError(ServiceError):
    """A service could not be started, or its launcher could not find it running."""


class NurseryClosedError(ServiceError):
    """The remote nursery ended while this call was running in it."""


class NurseryOpenError(RemoteError, RuntimeError):
    """A host's remote nursery is open already; there is one at a time in a process."""


class RefusedError(RemoteError):
    """A service answered, and its answer is a permanent refusal (a 4xx that no retry can change).

    `status` is the HTTP status code, `text` what the service said.
    """

    def __init__(self, message: str, *, status: int, text: str) -> None:
        super().__init__(message)
        self.status = status
        self.text = text


class AnswerError(RemoteError):
    """A service answered 200, with something that its protocol does not allow there."""


class WrongBytesError(RemoteError, ValueError):
    """Bytes that do not have the checksum under which they were offered."""


class TransformationError(RemoteError, RuntimeError):
    """A transformation ended at the jobserver without a result: the user's code failed."""


class TransformationCanceledError(TransformationError):
    """A transformation was canceled at the jobserver."""


class ClientRestartRequiredError(ServiceError):
    """A client is tied to a process that is gone, such as a launched service of a forked parent.

    The jobserver submits a transformation anew when a worker's failure carries this name.
    """
