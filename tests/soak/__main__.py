"""The command line: runs a soak in a process of its own, whose HOME is a temporary one.

No process of it is left and, where all went well, no file.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from services import end_processes_with, environment

from seamless_remote.demo.local_cluster import FOREIGN_PREFIXES

from .plan import BACKENDS, ENVIRONMENT


def main() -> int:
    """Run one soak; 0 when every promise was kept, 1 when not, 130 when interrupted."""
    minutes, seed, backend = _arguments()
    print(f"make soak MINUTES={minutes} SEED={seed} NURSERY={backend}", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    home = Path(tempfile.mkdtemp(prefix="seamless-soak-"))
    own = environment(home, TMPDIR=str(home / "tmp"))
    own = {name: value for name, value in own.items() if not name.startswith(FOREIGN_PREFIXES)}
    command = [sys.executable, "-W", "error::ResourceWarning", "-m", "soak.session"]
    status = 130
    try:
        session = subprocess.run(
            [*command, minutes, seed, backend],
            cwd=Path(__file__).resolve().parents[1],
            env={**own, **ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            check=False,
        )
        status = 1 if session.returncode else 0
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end_processes_with("HOME", str(home))
        if status == 0:
            shutil.rmtree(home)
        else:
            print(f"The logs, the ledger and the data are in {home}", file=sys.stderr)
    return status


def _arguments() -> tuple[str, str, str]:
    parser = argparse.ArgumentParser(
        prog="python -m soak",
        description="Mixed load on real services that are killed, stopped and restarted.",
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="of load (default: 10)")
    parser.add_argument("--seed", type=int, help="decides the load and the disturbances")
    parser.add_argument("--nursery", choices=BACKENDS, help="where it lives (default: by the seed)")
    chosen = parser.parse_args()
    if chosen.minutes <= 0:
        parser.error("some minutes are needed")
    seed = random.randrange(10_000) if chosen.seed is None else chosen.seed
    return f"{chosen.minutes:g}", str(seed), chosen.nursery or BACKENDS[seed % len(BACKENDS)]


if __name__ == "__main__":
    sys.exit(main())
