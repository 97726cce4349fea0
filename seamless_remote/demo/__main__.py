"""Runs the demo, where everything that it needs is installed.

Exit status: 0 when every step did what it should, 1 when one did not, 130 on Ctrl-C.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

NEEDED = (
    "psutil",
    "hashserver",
    "database",
    "jobserver",
    "seamless_transformer",
    "seamless_dask",
    "distributed",
)


def main() -> int:
    """Say what is missing, or show the demo."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(
            f"The demo needs {', '.join(missing)}."
            " Install it with: pip install 'seamless-remote[services,daskserver]'",
            file=sys.stderr,
        )
        return 1
    from .show import show

    return show()


if __name__ == "__main__":
    sys.exit(main())
