"""The errors of seamless-remote: one small hierarchy, importable from the top of the package.

Failing to reach a service is always a `ConnectionError` too. The Seamless packages take `OSError`,
`ConnectionError` and `TimeoutError` to mean "the service is away" and anything else to be final.
"""

from __future__ import annotations


class RemoteError(Exception):
    """Base class of the errors defined by seamless-remote."""


class ServiceError(RemoteError, ConnectionError):
    """The service could not be reached, or broke off before it had answered."""


class ConnectError(ServiceError):
    """The connection could not be established; nothing of the request was sent."""


class OwnLimitError(ConnectError):
    """This process, or its machine, lacks what a connection takes: a descriptor, a port, a thread.

    It says nothing of the service. Nothing of the request was sent.
    """


class ExchangeError(ServiceError):
    """The connection broke during a request. The service may or may not have acted on it."""


class ProtocolError(ExchangeError):
    """The response is not valid HTTP/1.1, or its body does not match its headers."""


class ServiceTimeout(ExchangeError, TimeoutError):
    """The service sent nothing for longer than the timeout."""


class LaunchError(ServiceError):
    """The service could not be launched, or the launcher could not find it running."""


class NurseryClosedError(ServiceError):
    """The remote nursery was closed while this call was running in it."""


class NurseryOpenError(RemoteError, RuntimeError):
    """A host already has a remote nursery open; a process has one at a time."""


class RefusedError(RemoteError):
    """The service refused the request for good (a 4xx status that retrying cannot change).

    `status` is the HTTP status code, `text` the body of the response.
    """

    def __init__(self, message: str, *, status: int, text: str) -> None:
        super().__init__(message)
        self.status = status
        self.text = text


class AnswerError(RemoteError):
    """The service answered with success, and with a body that its protocol does not allow.

    Something else may answer at its address: a web page of a network that wants a login, say.
    """


class DamagedBufferError(RemoteError):
    """The service has a damaged file under a buffer's checksum, and takes no other in its place."""


class WrongBytesError(RemoteError, ValueError):
    """The bytes do not match their checksum, or cannot be decoded to a buffer that does."""


class TransformationError(RemoteError, RuntimeError):
    """The transformation failed at the jobserver: the user's code raised an error."""


class TransformationCanceledError(TransformationError):
    """The transformation was canceled at the jobserver."""


class ClientRestartRequiredError(ServiceError):
    """The client belongs to a process that is gone, such as the parent of a forked process.

    seamless-jobserver looks for this class name in the error text of a failed job, and if it finds
    it, runs the job once more.
    """
