"""Service URLs: what they may look like, and which origin they name."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_ZONE = re.compile(r"[A-Za-z0-9._~-]+")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")


class Origin(NamedTuple):
    """Where a server listens: `scheme` is http or https, `host` has no brackets around IPv6.

    An IPv6 host may have a zone, as in `fe80::1%eth0`: the network interface that leads to it.
    """

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        # RFC 6874, 2.
        return f"{self.scheme}://{self._with_port(self.host.replace('%', '%25'))}"

    @property
    def name(self) -> str:
        """The host without its zone, which means nothing to anybody else."""
        return self.host.partition("%")[0]

    @property
    def authority(self) -> str:
        """`host:port` as the `Host` header has it, without the scheme's own port."""
        return self._with_port(self.name)

    def _with_port(self, host: str) -> str:
        host = f"[{host}]" if ":" in host else host
        return host if self.port == _DEFAULT_PORTS.get(self.scheme) else f"{host}:{self.port}"


def parse_url(url: str) -> tuple[Origin, str]:
    """Split a service's URL into its origin and its base path ("" or "/path", no slash at the end).

    Raises ValueError, saying what is wrong, for anything but http(s)://host[:port][/path], and
    TypeError for anything but a string.
    """
    if not isinstance(url, str):
        raise TypeError(f"a service URL must be a string, not {url!r}")
    fault, origin, path = _parse(url)
    if origin is None:
        # Not the URL itself if it may hold a password.
        name = "this" if "@" in url else repr(url)
        raise ValueError(f"{name} is not a service URL: {fault}")
    return origin, path


def _parse(url: str) -> tuple[str, Origin | None, str]:
    """What is wrong with a URL, or its origin and path."""
    if any(char <= " " or char == "\x7f" for char in url):
        return "it contains blanks or control characters", None, ""
    if not url.isascii():
        return "it is not plain ASCII", None, ""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        return str(exc), None, ""
    host = parts.hostname or ""
    if "[" in parts.netloc:
        # RFC 6874: the % before a zone is written %25. As browsers' users do, so may ours leave
        # that out.
        host = host.replace("%25", "%", 1)
    if parts.scheme not in _DEFAULT_PORTS:
        fault = "it must start with http:// or https://"
    elif "@" in parts.netloc:
        fault = "it must not contain a user name or a password"
    elif "?" in url or "#" in url:
        fault = "it must not have a query or a fragment"
    elif port == 0 or parts.netloc.endswith(":"):
        fault = "its port must be between 1 and 65535"
    else:
        fault = _host_fault(host, bracketed="[" in parts.netloc)
    if fault:
        return fault, None, ""
    origin = Origin(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme])
    return "", origin, parts.path.rstrip("/")


def _host_fault(host: str, *, bracketed: bool) -> str:
    """What is wrong with the host of a URL; an empty text if nothing is."""
    if not host:
        return "it names no host"
    if bracketed:
        address, percent, zone = host.partition("%")
        try:
            ipaddress.IPv6Address(address)
        except ValueError as exc:
            return str(exc)
        return "" if not percent or _ZONE.fullmatch(zone) else f"{zone!r} is no zone of an address"
    # RFC 1035, 2.3.4. Python's look-up raises UnicodeError for a label that is empty or too long.
    name = host.removesuffix(".")
    if len(name) > 253:
        return "its host name is longer than 253 characters"
    for label in name.split("."):
        if not 1 <= len(label) <= 63:
            return "each part of its host name must have 1 to 63 characters"
        if not _LABEL.fullmatch(label):
            return f"{label!r} cannot be part of a host name"
    return ""


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or its address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
