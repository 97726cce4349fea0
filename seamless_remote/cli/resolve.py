"""`seamless-resolve`: get a buffer by its checksum."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .program import Tool, run_tool

_TOOL = Tool(
    name="seamless-resolve",
    description="Write the buffer with a checksum to standard output or to a file.",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return run_tool(_TOOL, argv)


if __name__ == "__main__":
    sys.exit(main())
