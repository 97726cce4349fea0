"""A nursery's snapshot as a small HTML table, for notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .snapshot import NurserySnapshot

_HEAD = ("", "state", "what is known")


def as_html(snapshot: NurserySnapshot) -> str:
    """One row for the nursery, each service's clients, each bound, and the calls under way."""
    where = "a thread of its own" if snapshot.hosted else "its host's loop"
    rows: list[tuple[str, str, str]] = [
        ("remote nursery", snapshot.state, escape(f"{snapshot.backend}, in {where}"))
    ]
    for service in snapshot.services:
        rows += [(service.name, service.state, _facts(asdict(each))) for each in service.clients]
    for bound in (snapshot.jobs, snapshot.limiter):
        rows.append((bound.name, "", _facts(asdict(bound), without=("name",))))
    rows += [(call.what, f"{call.age:.1f} s", escape(call.waits_for)) for call in snapshot.calls]
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{_cells('th', _HEAD)}</tr></thead><tbody>{body}</tbody></table>"


def _cells(tag: str, row: Iterable[str]) -> str:
    first, second, known = row
    return f"<{tag}>{escape(first)}</{tag}><{tag}>{escape(second)}</{tag}><{tag}>{known}</{tag}>"


def _facts(values: dict[str, Any], without: Iterable[str] = ()) -> str:
    known = ((key, value) for key, value in values.items() if value is not None)
    return ", ".join(f"{_words(key)} {_shown(value)}" for key, value in known if key not in without)


def _words(key: str) -> str:
    return escape(key.replace("_", " "))


def _shown(value: object) -> str:
    text = escape(f"{value:.3g}" if isinstance(value, float) else str(value))
    return f'<a href="{text}">{text}</a>' if text.startswith(("http://", "https://")) else text
