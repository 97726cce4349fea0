"""Checksums in text as people have it: bare, from `sha256sum`, from PowerShell. No I/O."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    # Before the shorter ones that they begin with.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_HEX = r"[0-9a-fA-F]{64}"
_FORMS = (
    # HEX, sha256:HEX, either of them in quotes, and as an entry of a list.
    re.compile(rf"(?P<quote>[\"']?)(?:sha256[:-])?(?P<hex>{_HEX})(?P=quote),?", re.IGNORECASE),
    # sha256sum. It escapes strange names, and says so by a backslash at the start.
    re.compile(rf"(?:sha256:)?(?P<hex>{_HEX}) [ *](?P<name>.+)", re.IGNORECASE),
    re.compile(rf"\\(?P<hex>{_HEX}) [ *].+"),
    # sha256sum --tag, openssl dgst -sha256.
    re.compile(rf"SHA2?-?256 ?\((?P<name>.+)\) ?= ?(?P<hex>{_HEX})", re.IGNORECASE),
)


def text_of(content: bytes) -> str:
    """The text in `content`, in whatever encoding of Unicode."""
    for bom, encoding in _BOMS:
        if content.startswith(bom):
            return content[len(bom) :].decode(encoding, "replace")
    # Checksums are ASCII, so that every second byte is zero.
    if content[1:2] == b"\0":
        return content.decode("utf-16-le", "replace")
    if content[:1] == b"\0":
        return content.decode("utf-16-be", "replace")
    return content.decode("utf-8", "replace")


def lines_of(content: bytes) -> Iterator[tuple[int, str]]:
    """The lines that count, with their numbers: no blank ones, and none that begin with `#`.

    Lines end with LF, CR LF, CR, or NUL (`sha256sum -z`).
    """
    text = re.sub(r"\r\n?|\0", "\n", text_of(content))
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if line and not line.startswith("#"):
            yield number, line


def checksum_in(line: str) -> tuple[str, str | None] | None:
    """The checksum in a line, in lowercase, and the file name beside it; None if there is none.

    Of the name only the last part counts, and none that a folder cannot have.
    """
    for form in _FORMS:
        found = form.fullmatch(line)
        if found is not None:
            name = os.path.basename(found.groupdict().get("name") or "")
            return found["hex"].lower(), None if name in ("", ".", "..", "-") else name
    return None
