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
    "ours": ["--editable", ".[services]"],
    "published": ["seamless-remote==0.4.0", *_SERVICES],
}

NAMES = tuple(_REQUIREMENTS)


def python(name: str) -> Path:
    """The interpreter of the environment `name`, made or not."""
    return CHECKOUT / f".venv-bench-{name}" / "bin" / "python"


def ensure(name: str) -> None:
    """Make the environment, unless it was made to the same requirements and pyproject.toml."""
    folder, requirements = python(name).parents[1], _REQUIREMENTS[name]
    wanted = json.dumps([sys.version, requirements])
    if name == "ours":
        wanted += (CHECKOUT / "pyproject.toml").read_text()
        # The others come compiled, by pip; PYTHONDONTWRITEBYTECODE would have this one compiled at
        # every start.
        package = CHECKOUT / "seamless_remote"
        subprocess.run([sys.executable, "-m", "compileall", "-q", package], check=True)
    made = folder / "made-for"
    if made.exists() and made.read_text() == wanted:
        return
    print(f"Making {folder.name}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    pip = [python(name), "-m", "pip", "-qq", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, *requirements], check=True, cwd=CHECKOUT)
    made.write_text(wanted)
