"""The ledger: every confirmed write, to be looked for at the end.

It is a file, so that the soak's own memory does not grow with it. Its lines:

    buffer CHECKSUM LENGTH
    result TRANSFORMATION RESULT ...      any of these; `-` stands for none
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import threading
from collections import Counter, deque
from contextlib import closing
from pathlib import Path

from services import Home

REMEMBERED = 3000  # of the latest buffers and results, to be read again
NOTHING = "-"
LEDGER = "ledger"


class Ledger:
    """Notes what was confirmed. Safe to use from any thread."""

    def __init__(self, home: Home) -> None:
        self._file = (home.path / LEDGER).open("w", buffering=1)
        self._lock = threading.Lock()
        self._latest: dict[str, deque[tuple[str, str]]] = {
            kind: deque(maxlen=REMEMBERED) for kind in ("buffer", "result")
        }

    def confirm(self, kind: str, key: str, value: str) -> None:
        """Note a buffer with its length, or a transformation with its only result."""
        self.note(kind, key, value)
        self._latest[kind].append((key, value))

    def note(self, kind: str, key: str, *values: str) -> None:
        """Write one line."""
        with self._lock:
            self._file.write(" ".join([kind, key, *values]) + "\n")

    def draw(self, kind: str, draw: random.Random) -> tuple[str, str] | None:
        """One of the latest buffers with its length, or results; None where there is none yet."""
        latest = self._latest[kind]
        return draw.choice(latest) if latest else None

    def close(self) -> None:
        self._file.close()


def audit(home: Home) -> tuple[Counter[str], list[str]]:
    """Check every line of the ledger, and the database's file as a whole.

    The means share nothing with ours: hashlib on the hashserver's folder, sqlite3 on the file.
    Gives how many entries of each kind are as confirmed, and what is amiss.
    """
    found: Counter[str] = Counter()
    amiss = []
    # Not read-only: SQLite may have to roll back what a killed database has left half done.
    with closing(sqlite3.connect(home.database / "seamless.db", timeout=30)) as results:
        for line in (home.path / LEDGER).read_text().splitlines():
            kind, key, *values = line.split()
            if kind == "buffer":
                actual = _buffer(home.buffers / key[:2] / key, key)
            else:
                rows = results.execute("SELECT result FROM transformation WHERE checksum=?", [key])
                actual = next((row[0] for row in rows), NOTHING)
            if actual in values:
                found[kind] += 1
            else:
                amiss.append(f"{kind} {key}: {actual}, not one of {values}")
        checks = [row[0] for row in results.execute("PRAGMA integrity_check")]
    return found, amiss + [f"the database's file: {check}" for check in checks if check != "ok"]


def _buffer(path: Path, checksum: str) -> str:
    """The length of a stored buffer, or what is wrong with it."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return NOTHING
    right = hashlib.sha256(content).hexdigest() == checksum
    return str(len(content)) if right else "wrong bytes"
