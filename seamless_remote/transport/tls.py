"""TLS on connected sockets, with the standard library's `ssl`.

Neither making the context nor a handshake blocks an event loop. Errors say what is wrong in words
that a user can act on.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from .daemon_threads import SharedThreads
from .own_socket import OwnSocket
from .socket_waits import readable, writable

# What OpenSSL makes of an answer that is not TLS: mostly a wrong version number, in releases from
# 3.2 on also a packet that is too long, or just a failure of its record layer.
_NOT_TLS = frozenset(
    (
        "HTTP_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
        "UNKNOWN_PROTOCOL",
        "WRONG_VERSION_NUMBER",
    )
)
# X509_V_ERR_...: self-signed (18, 19), or signed by nobody who is known here (20, 21).
_UNKNOWN_ISSUER = (18, 19, 20, 21)

_context: ssl.SSLContext | None = None


async def client_context() -> ssl.SSLContext:
    """The process's context, which trusts certifi's certificates and the system's.

    SSL_CERT_FILE and SSL_CERT_DIR replace the system's. Loading can take a second: a daemon thread
    does it once, while all callers wait. An OSError if it fails; the next call then tries again.
    """
    return _context or await _makers.result_of("context")


def forget_context() -> None:
    """Have the next `client_context` load the certificates anew."""
    global _context
    _context = None


async def handshake(sock: socket.socket, host: str) -> ssl.SSLSocket:
    """Do the TLS handshake with `host` on a connected non-blocking socket, which this takes over.

    The result is non-blocking, and reports a connection that ends without TLS's goodbye as an
    `ssl.SSLEOFError`: it may have been cut short. Any failure is an OSError. After an error or a
    cancellation the socket is closed.
    """
    owned = sock
    try:
        context = await client_context()
        try:
            owned = secure = context.wrap_socket(
                sock,
                server_hostname=_name_to_check(host),
                do_handshake_on_connect=False,
                suppress_ragged_eofs=False,
            )
            await _shake_hands(secure)
        except OSError as exc:
            raise _in_plain_words(exc) from exc
        except ValueError as exc:
            raise OSError(f"TLS cannot check the host name {host!r}: {exc}") from exc
    except BaseException:
        owned.close()
        raise
    return secure


async def _shake_hands(secure: ssl.SSLSocket) -> None:
    ready: Callable[[socket.socket], Awaitable[bool]]
    while True:
        try:
            secure.do_handshake()
            return
        except ssl.SSLWantReadError:
            ready = readable
        except ssl.SSLWantWriteError:
            ready = writable
        # A reset ends this wait on uvloop, too: it reports an error only once for a registration,
        # but each wait registers the socket anew.
        await ready(secure)


class _DialedSocket(OwnSocket, ssl.SSLSocket):
    """A TLS socket over one that was connected when it was handed over.

    Before Python 3.13, `wrap_socket` leaks its socket if the peer has reset the connection by then:
    it asks for the peer's name, and takes the error to mean "not connected yet". Here the handshake
    goes on, meets the reset and reports it.
    """

    def getpeername(self) -> Any:
        """The peer's address, or None once the connection has been reset."""
        try:
            return super().getpeername()
        except OSError:
            return None


def _name_to_check(host: str) -> str:
    """`host` as certificates have it: without IPv6's zone and the dot of a complete name.

    ValueError if it cannot be in any. (`wrap_socket` would leak its socket then.)
    """
    name = host.partition("%")[0].removesuffix(".")
    if "\0" in name:
        raise ValueError("it holds a NUL")
    return name.encode("idna").decode("ascii")


def _in_plain_words(exc: OSError) -> OSError:
    """An error of the same type and number that says what is wrong."""
    number, text = exc.errno, _explanation(exc)
    # No number, and 0, are what Python makes of a connection that ended within OpenSSL.
    return type(exc)(number, text) if number else ConnectionError(text)


def _explanation(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        fault = exc.verify_message.rstrip(".")
        hint = " (SSL_CERT_FILE can name its issuer)" if exc.verify_code in _UNKNOWN_ISSUER else ""
        return f"the server's certificate is not accepted: {fault}{hint}"
    if isinstance(exc, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return "the server closed the connection during the TLS handshake"
    if isinstance(exc, ssl.SSLError) and exc.reason in _NOT_TLS:
        return "the server does not speak TLS there: is it http://?"
    if isinstance(exc, ssl.SSLError) and exc.reason:
        return f"the TLS handshake failed: {exc.reason.replace('_', ' ').lower()}"
    return f"the TLS handshake broke off: {exc.strerror or str(exc) or type(exc).__name__}"


def _make_context(_: str) -> ssl.SSLContext:
    global _context
    import certifi

    context = ssl.create_default_context()
    context.sslsocket_class = _DialedSocket
    context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    context.options |= getattr(ssl, "OP_NO_RENEGOTIATION", 0)
    # Kept before the call ends, so that nobody starts a second one in between.
    _context = context
    return context


_makers: SharedThreads[str, ssl.SSLContext] = SharedThreads("certificates", _make_context)
# Another thread of the parent may have held a lock within OpenSSL's certificate store.
os.register_at_fork(after_in_child=forget_context)
