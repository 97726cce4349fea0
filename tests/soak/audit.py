"""Whether everything in the ledger is at the services, by means that share nothing with ours:
hashlib on the hashserver's folder, http.client to the database, sqlite3 on its file.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from .ledger import NOTHING

HOST = "127.0.0.1"
PATIENCE = 30.0


@dataclass
class Findings:
    """How many entries of each kind were found as confirmed, and what is amiss."""

    found: Counter[str] = field(default_factory=Counter)
    amiss: list[str] = field(default_factory=list)


def audit(ledger: Path, buffers: Path, database: Path, port: int) -> Findings:
    """Check every line of the ledger; `port` is the database's, which must be running."""
    findings = Findings()
    connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE)
    try:
        for line in ledger.read_text().splitlines():
            kind, key, *values = line.split()
            if kind == "buffer":
                fault = _fault_of_buffer(buffers / key[:2] / key, key, int(values[0]))
            else:
                found = _result(connection, key)
                fault = None if found in values else f"the database has {found}, not {values}"
            if fault is None:
                findings.found[kind] += 1
            else:
                findings.amiss.append(f"{kind} {key}: {fault}")
    finally:
        connection.close()
    findings.amiss += _faults_of_file(database)
    return findings


def _fault_of_buffer(path: Path, checksum: str, length: int) -> str | None:
    try:
        with path.open("rb") as file:
            actual = hashlib.sha256()
            while piece := file.read(1 << 20):
                actual.update(piece)
            size = file.tell()
    except FileNotFoundError:
        return f"there is no {path}"
    if size != length:
        return f"{path} has {size} bytes, not {length}"
    if actual.hexdigest() != checksum:
        return f"{path} has checksum {actual.hexdigest()}"
    return None


def _result(connection: http.client.HTTPConnection, transformation: str) -> str:
    question = json.dumps({"type": "transformation", "checksum": transformation})
    try:
        connection.request("GET", "/", body=question)
        response = connection.getresponse()
        text = response.read().decode()
    except (OSError, http.client.HTTPException) as exc:
        connection.close()  # the next question opens it anew
        return f"no answer: {exc!r}"
    if response.status == 200:
        return text
    return NOTHING if response.status == 404 else f"an answer {response.status}: {text}"


def _faults_of_file(path: Path) -> list[str]:
    """What SQLite finds wrong with the database's file."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=PATIENCE)) as file:
            rows = [row[0] for row in file.execute("PRAGMA integrity_check")]
    except sqlite3.Error as exc:
        rows = [repr(exc)]
    return [] if rows == ["ok"] else [f"{path}: {row}" for row in rows]
