"""The report of a soak: text for stdout."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from .audit import Findings
from .plan import Plan

MOST_AMISS = 20


def report(
    plan: Plan, outcome: dict[str, Any] | None, findings: Findings, failure: str | None
) -> str:
    """What was done, what came of it, and whether every promise was kept."""
    lines = [
        f"Soak of {plan.minutes:g} minutes: nursery {plan.backend}, seed {plan.seed} "
        f"(make soak MINUTES={plan.minutes:g} SEED={plan.seed} NURSERY={plan.backend})"
    ]
    broken = []
    if outcome is not None:
        lines += [*_operations(outcome), *_summary(plan, outcome, findings)]
        broken += outcome["violations"]
        if outcome["more_violations"]:
            broken.append(f"and {outcome['more_violations']} more")
    broken += findings.amiss[:MOST_AMISS]
    if len(findings.amiss) > MOST_AMISS:
        broken.append(f"and {len(findings.amiss) - MOST_AMISS} more entries of the ledger")
    if failure is not None:
        broken.append(failure)
    lines += ["", *(f"BROKEN: {text}" for text in broken)]
    lines.append(f"FAILED: {len(broken)} broken promises" if broken else "PASSED")
    return "\n".join(lines)


def _operations(outcome: dict[str, Any]) -> list[str]:
    """A row for each kind of operation, with its errors by type."""
    others: dict[str, list[str]] = defaultdict(list)
    done: dict[str, int] = {}
    for kind, result, count in sorted(outcome["outcomes"]):
        if result == "done":
            done[kind] = count
        else:
            others[kind].append(f"{count} {result}")
    rows = ["", f"{'operation':26}{'calls':>7}{'done':>7}{'longest':>9}  otherwise"]
    for kind, calls in sorted(outcome["operations"].items(), key=lambda item: -item[1]):
        longest = f"{outcome['longest'][kind]:.1f} s"
        rows.append(
            f"{kind:26}{calls:7}{done.get(kind, 0):7}{longest:>9}  {', '.join(others[kind])}"
        )
    return rows


def _summary(plan: Plan, outcome: dict[str, Any], findings: Findings) -> list[str]:
    begin, end = outcome["begin"], outcome["end"]
    calls = sum(outcome["operations"].values())
    highest = max((each["memory"] for _, each in outcome["samples"]), default=0.0)
    held = [f"{what} {begin[what]} / {end[what]}" for what in begin if what != "memory"]
    return [
        "",
        f"{calls} calls, {calls / plan.minutes / 60:.0f} a second",
        f"confirmed: {_counts(outcome['confirmed'])}",
        f"found afterwards, of what was confirmed: {_counts(findings.found)}; "
        f"amiss: {len(findings.amiss)}",
        f"disturbances: {_counts(outcome['disturbances'])}",
        f"launches: {_counts(outcome['launches'])}",
        f"memory at rest: {begin['memory']:.0f} MB at the beginning, {end['memory']:.0f} MB at the "
        f"end; {highest:.0f} MB at most under load",
        f"held at rest, at the beginning / at the end: {', '.join(held)}",
    ]


def _counts(counts: dict[str, int]) -> str:
    def most_first(items: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
        return sorted(items, key=lambda item: (-item[1], item[0]))

    return ", ".join(f"{count} {what}" for what, count in most_first(counts.items())) or "none"
