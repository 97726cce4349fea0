"""Programs: curl, and the command-line tools of both packages."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from meter import Meter, Report
from task import Task, require

_CHUNK = 1 << 20


def downloaded(task: Task) -> Report:
    """The large buffer from the server into a file."""
    checksum = task[task["buffer"]]
    with tempfile.TemporaryDirectory(dir=task["scratch"]) as folder:
        target = Path(folder, "download")
        url = task["servers"][0]
        if task["peer"] == "curl":
            report = _run(["curl", "-sSf", "-o", target, f"{url}/{checksum}"])
        else:
            clients = {"buffer": [{"remote_url": url, "readonly": True}]}
            report = _run(
                [_script("seamless-resolve"), checksum, "--output", target],
                SEAMLESS_REMOTE_CLIENTS=json.dumps(clients),
                HOME=folder,
            )
        require(_file_checksum(target) == checksum, "the file's bytes")
    return report


def uploaded(task: Task) -> Report:
    """A large new buffer from a file to the server."""
    with tempfile.NamedTemporaryFile(dir=task["scratch"]) as source:
        piece = os.urandom(1 << 20)
        for _ in range(task["mebibytes"]):
            source.write(piece)
        source.flush()
        checksum = _file_checksum(Path(source.name))
        url = f"{task['servers'][0]}/{checksum}"
        report = _run(["curl", "-sSf", "-H", "Expect:", "-o", os.devnull, "-T", source.name, url])
    stored = Path(task["stored"], checksum[:2], checksum)
    require(_file_checksum(stored) == checksum, "the stored bytes")
    stored.unlink()
    return report


def help_text(task: Task) -> Report:
    """`seamless-resolve --help`, `count` times."""
    command = [_script("seamless-resolve"), "--help"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    require("checksum" in shown.lower(), "the help text")
    with Meter(children=True) as meter:
        for _ in range(task["count"]):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return meter.report(task["count"])


def _script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _run(command: Sequence[str | Path], **variables: str) -> Report:
    with Meter(children=True) as meter:
        done = subprocess.run(
            command, env=os.environ | variables, capture_output=True, text=True, check=False
        )
    require(done.returncode == 0, f"{command[0]} ended with {done.returncode}: {done.stderr}")
    return meter.report(1)


def _file_checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
