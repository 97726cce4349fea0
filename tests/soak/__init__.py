"""The soak: mixed load on real services that are killed, stopped and restarted all the while.

`make soak` (or `python -m soak`, see its `--help`) runs it; it is no part of the package.
"""

import sys
from pathlib import Path

# How services are started, found and ended stands once: with the tests.
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
