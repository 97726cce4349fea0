"""The tools with a folder of their own, and a buffer store on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Command, clients


@pytest.fixture
def store_folder(tmp_path: Path) -> Path:
    """A folder of buffers."""
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


@pytest.fixture
def tool(tmp_path: Path, store_folder: Path) -> Command:
    """The tools, with `store_folder` as the only source."""
    return Command(tmp_path / "work", clients(store_folder))


@pytest.fixture
def bare_tool(tmp_path: Path) -> Command:
    """The tools, with no source at all."""
    return Command(tmp_path / "work")
