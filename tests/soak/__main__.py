"""The command line: `python -m soak`, from the checkout, where the tests can run; see `--help`."""

from __future__ import annotations

import argparse
import random
import sys

from .plan import BACKENDS, Plan


def main() -> int:
    """Run one soak; 0 when every promise was kept."""
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
    plan = Plan(chosen.minutes, seed, chosen.nursery or BACKENDS[seed % len(BACKENDS)])
    print(f"seed {plan.seed}, nursery {plan.backend}", file=sys.stderr)
    from .supervisor import supervise

    return supervise(plan)


if __name__ == "__main__":
    sys.exit(main())
