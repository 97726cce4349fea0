"""Tables of what is no checksum, no buffer, no URL, no record: each by a name of its own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from seamless import Buffer, Checksum

HEX = "ab" * 32

NO_CHECKSUMS: dict[str, Any] = {
    "None": None,
    "zero": 0,
    "a number": 12345,
    "the number it stands for": int(HEX, 16),
    "a fraction": 1.5,
    "not a number": math.nan,
    "True": True,
    "False": False,
    "an ellipsis": ...,
    "an object": object(),
    "a class": Checksum,
    "an empty list": [],
    "a list of one": [HEX],
    "a tuple of one": (HEX,),
    "a set of one": {HEX},
    "a dict": {"checksum": HEX},
    "an empty string": "",
    "a word": "abc",
    "63 digits": HEX[:63],
    "65 digits": HEX + "a",
    "128 digits": HEX * 2,
    "64 other letters": "xy" * 32,
    "one wrong letter": HEX[:-1] + "g",
    "a sign and 63 digits": "-" + HEX[:63],
    "0x and 62 digits": "0x" + HEX[:62],
    "64 digits of another script": "\uff11" * 64,
    "a NUL in it": HEX[:-1] + "\0",
    "a name of the hash": "sha256:" + HEX,
    "in quotes": f'"{HEX}"',
    "an absolute path": "/etc/passwd",
    "a relative path": "../" * 20 + "etc",
    "a checksum file": f"{HEX}.CHECKSUM",
    "a stored file": f"/buffers/ab/{HEX}",
    "a Path": Path("/etc/passwd"),
    "a URL": f"http://127.0.0.1/{HEX}",
    "a request line": f"{HEX} HTTP/1.1\r\nX: y\r\n",
    "no bytes": b"",
    "31 bytes": bytes(31),
    "33 bytes": bytes(33),
    "digits as bytes": HEX.encode(),
    "a bytearray": bytearray(32),
    "a memoryview": memoryview(bytes(32)),
    "a buffer": Buffer(b"abc"),
}

NO_LISTS: dict[str, Any] = {
    "None": None,
    "a number": 5,
    "True": True,
    "an object": object(),
    "a checksum": Checksum(HEX),
    "a checksum as text": HEX,
    "a checksum as bytes": bytes(32),
    "a class": list,
}

NO_BUFFERS: dict[str, Any] = {
    "None": None,
    "bytes": b"abc",
    "a bytearray": bytearray(b"abc"),
    "a memoryview": memoryview(b"abc"),
    "text": "abc",
    "a number": 3,
    "True": True,
    "a list": [1, 2],
    "a dict": {"a": 1},
    "a Path": Path("/etc/passwd"),
    "an open file": open,
    "a checksum": Checksum(HEX),
    "the class": Buffer,
}

NO_URLS: dict[str, Any] = {
    "an empty string": "",
    "a blank": " ",
    "a word": "hashserver",
    "a host and a port": "127.0.0.1:5577",
    "localhost and a port": "localhost:5577",
    "no scheme": "//127.0.0.1:5577",
    "a path": "/var/buffers",
    "ftp": "ftp://127.0.0.1",
    "file": "file:///var/buffers",
    "ws": "ws://127.0.0.1:80",
    "tcp": "tcp://127.0.0.1:80",
    "unix": "unix:///run/socket",
    "http+unix": "http+unix://%2Frun%2Fsocket",
    "a data URL": "data:text/plain,x",
    "javascript": "javascript:alert(1)",
    "one slash": "http:/127.0.0.1",
    "no slash": "http:127.0.0.1",
    "no host": "http://",
    "no host but a path": "http:///path",
    "no host but a port": "http://:5577",
    "a user": "http://me@127.0.0.1",
    "a user and a password": "http://me:secret@127.0.0.1",
    "an empty user": "http://@127.0.0.1",
    "a password and no user": "http://:secret@127.0.0.1",
    "a query": "http://127.0.0.1/?a=b",
    "an empty query": "http://127.0.0.1/?",
    "a fragment": "http://127.0.0.1/#part",
    "an empty fragment": "http://127.0.0.1#",
    "port 0": "http://127.0.0.1:0",
    "port 65536": "http://127.0.0.1:65536",
    "a negative port": "http://127.0.0.1:-1",
    "a port that is no number": "http://127.0.0.1:http",
    "an empty port": "http://127.0.0.1:",
    "two ports": "http://127.0.0.1:80:81",
    "a port of another script": "http://127.0.0.1:\uff18\uff10",
    "a blank before": " http://127.0.0.1",
    "a blank after": "http://127.0.0.1 ",
    "a blank in the host": "http://127.0 .0.1",
    "a blank in the path": "http://127.0.0.1/a b",
    "a line feed": "http://127.0.0.1\n",
    "a header": "http://127.0.0.1/\r\nX: y",
    "a NUL": "http://127.0.0.1/\0",
    "a tab": "http://127.0.0.1/\t",
    "an umlaut in the host": "http://zürich",
    "an umlaut in the path": "http://127.0.0.1/zürich",
    "an open bracket": "http://[::1",
    "no address in brackets": "http://[abc]",
    "an IPv4 address in brackets": "http://[127.0.0.1]",
    "a number": 5577,
    "True": True,
    "bytes": b"http://127.0.0.1",
    "a list": ["http://127.0.0.1"],
    "a dict": {"url": "http://127.0.0.1"},
    "a Path": Path("http://127.0.0.1"),
}

NO_NAMES: dict[str, Any] = {
    "None": None,
    "a number": 5,
    "True": True,
    "bytes": b"name",
    "a list": ["name"],
    "a tuple": ("name",),
    "a dict": {"name": 1},
    "an empty string": "",
}

NO_TYPES: dict[str, Any] = {
    "None": None,
    "a number": 5,
    "an empty string": "",
    "a jobserver": "jobserver",
    "capitals": "HASHSERVER",
    "a blank after": "hashserver ",
    "another's": "daskserver",
    "bytes": b"hashserver",
    "a list": ["hashserver"],
    "a URL": "http://127.0.0.1",
}

NO_DIRECTORIES: dict[str, Any] = {
    "a number": 5,
    "True": True,
    "an empty string": "",
    "bytes": b"/tmp",
    "a list": ["/tmp"],
    "a dict": {"directory": "/tmp"},
    "a NUL": "/tmp/\0",
}

NO_RECORDS: dict[str, Any] = {
    "None": None,
    "a number": 5,
    "text": "abc",
    "JSON text": "{}",
    "bytes": b"{}",
    "a list": [1, 2],
    "a list of pairs": [("a", 1)],
    "a set": {"a"},
    "True": True,
    "an object": object(),
    "bytes in it": {"a": b"x"},
    "a set in it": {"a": {1}},
    "a checksum in it": {"a": Checksum(HEX)},
    "an object in it": {"a": object()},
    "a Path in it": {"a": Path("/tmp")},
    "a complex number in it": {"a": 1j},
    "bytes as a key": {b"a": 1},
    "a tuple as a key": {("a",): 1},
    "half a letter in it": {"a": "\ud800"},
}

NO_TEXTS: dict[str, Any] = {
    "None": None,
    "a number": 5,
    "True": True,
    "bytes": b"label",
    "a list": ["label"],
    "a dict": {"label": 1},
    "an object": object(),
    "half a letter": "\ud800",
}


def circular() -> dict[str, Any]:
    """A record that contains itself."""
    record: dict[str, Any] = {}
    record["self"] = record
    return record


NO_RECORDS["itself in it"] = circular()
