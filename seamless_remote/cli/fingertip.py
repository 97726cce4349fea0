"""`seamless-fingertip`: get a buffer by its checksum, recomputing it if no source has it."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Sequence
from typing import Any

from .program import Tool, run_tool
from .statuses import Failure, Status

logger = logging.getLogger(__name__)


async def recompute(checksum: str) -> bytes:
    """Recompute a buffer in this process, by a transformation that the database knows.

    Failure if no transformation is known to produce the buffer, or none produces it any more.
    """
    from seamless import CacheMissError, Checksum

    from .. import database_remote

    if not database_remote.has_read_server():
        raise _gone(checksum, "no database is configured to look up what produced it")
    made_by = await database_remote.get_rev_transformations(Checksum(checksum))
    if not made_by:
        raise _gone(checksum, "the database knows no transformation that produced it")
    if importlib.util.find_spec("seamless_transformer") is None:
        raise Failure(
            Status.CONFIGURATION,
            f"recomputing {checksum} needs seamless-transformer: pip install seamless-transformer",
        )
    try:
        buffer = await Checksum(checksum).fingertip()
    except CacheMissError as exc:
        if logger.isEnabledFor(logging.DEBUG):
            await _log_reasons(made_by)
        names = ", ".join(each.hex() for each in made_by)
        raise _gone(
            checksum,
            "no transformation produces it any more: an input is gone, the code fails, or the "
            f"result varies (tried: {names}; --debug shows more)",
        ) from exc
    content: bytes = buffer.content
    return content


async def _log_reasons(transformations: Sequence[Any]) -> None:
    """Run the transformations again to log why they fail, which `fingertip()` does not report."""
    from seamless_transformer.transformation_cache import recompute_from_transformation_checksum

    for each in transformations:
        try:
            result = await recompute_from_transformation_checksum(each.hex())
        except Exception:
            logger.debug("transformation %s fails", each.hex(), exc_info=True)
        else:
            found = "cannot be read" if result is None else f"produces {result}"
            logger.debug("transformation %s %s", each.hex(), found)


def _gone(checksum: str, reason: str) -> Failure:
    return Failure(
        Status.UNKNOWN_CHECKSUM,
        f"no source has a buffer with checksum {checksum}, and it cannot be recomputed: {reason}",
    )


_TOOL = Tool(
    name="seamless-fingertip",
    description="Write the buffer with a checksum to standard output or to a file, recomputing it "
    "if no source has it.",
    recover=recompute,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return run_tool(_TOOL, argv)


if __name__ == "__main__":
    sys.exit(main())
