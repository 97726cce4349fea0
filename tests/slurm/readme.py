"""The chapter "On a cluster" of the README, whose files and programs the tests run."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CHAPTER = re.compile(r"^## On a cluster\n(.*?)^## ", re.MULTILINE | re.DOTALL)


def chapter() -> str:
    """The text of the chapter."""
    found = _CHAPTER.search(README.read_text())
    assert found is not None, f"{README} has no chapter 'On a cluster'"
    return found.group(1)


def files() -> dict[str, str]:
    """The files that the chapter shows, by the name in each one's first line, a comment."""
    shown = {}
    for language, text in _BLOCK.findall(chapter()):
        if language in ("yaml", "python"):
            first, _, rest = text.partition("\n")
            shown[first.removeprefix("# ")] = rest
    return shown


def outputs() -> list[str]:
    """The outputs that the chapter shows, in order."""
    return [text for language, text in _BLOCK.findall(chapter()) if language == "text"]
