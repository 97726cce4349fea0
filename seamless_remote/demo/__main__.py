"""Runs the demo, if the packages it needs are installed.

Exit status: 0 if every step succeeded, 1 if one failed or a package is missing, 130 on Ctrl-C.
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
    """Run the demo, or print which packages are missing; returns the exit status."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(
            f"The demo needs {', '.join(missing)}."
            " Install it with: pip install 'seamless-remote[services,daskserver]'",
            file=sys.stderr,
        )
        return 1
    from .show import run_demo

    return run_demo()


if __name__ == "__main__":
    sys.exit(main())
