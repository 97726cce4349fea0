"""The virtualenvs of the peers, in the checkout: each peer's packages exclude those of another."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

_SERVICES = [
    "hashserver==1.1.0",
    "aiofiles>=23",
    "seamless-database==2.1.0",
    "seamless-jobserver==0.3.0",
    "seamless-transformer==0.6.1",
]
_REQUIREMENTS = {
    "ours": ["--editable", ".[services,bench]"],
    "published": ["seamless-remote==0.4.0", *_SERVICES],
    "asks": ["asks==3.0.0", "anyio~=3.0"],
}

NAMES = tuple(_REQUIREMENTS)


def folder(name: str) -> Path:
    """Where the environment `name` is, made or not."""
    return CHECKOUT / f".venv-bench-{name}"


def python(name: str) -> Path:
    """The interpreter of the environment `name`."""
    return folder(name) / "bin" / "python"


def ensure(name: str) -> None:
    """Make the environment, unless it was made to the same requirements and pyproject.toml."""
    requirements = _REQUIREMENTS[name]
    wanted = json.dumps([sys.version, requirements])
    if name == "ours":
        wanted += (CHECKOUT / "pyproject.toml").read_text()
        # The others come compiled, by pip; PYTHONDONTWRITEBYTECODE would have this one compiled at
        # every start.
        subprocess.run(
            [sys.executable, "-m", "compileall", "-q", CHECKOUT / "seamless_remote"], check=True
        )
    made = folder(name) / "made-for"
    if made.exists() and made.read_text() == wanted:
        return
    print(f"Making {folder(name).name}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder(name)], check=True)
    pip = [str(python(name)), "-m", "pip", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", *requirements], check=True, cwd=CHECKOUT)
    made.write_text(wanted)


def versions(name: str) -> dict[str, str]:
    """The distributions installed in the environment, by name."""
    pip = [
        str(python(name)),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "list",
        "--format",
        "json",
    ]
    listed = subprocess.run(pip, check=True, capture_output=True, text=True)
    return {entry["name"]: entry["version"] for entry in json.loads(listed.stdout)}
