"""Fixtures that run the tools in their own folder, with and without a buffer folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Command, clients


@pytest.fixture
def store_folder(tmp_path: Path) -> Path:
    """A buffer folder."""
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


@pytest.fixture
def tool(tmp_path: Path, store_folder: Path) -> Command:
    """The tools with `store_folder` as their only source."""
    return Command(tmp_path / "work", clients(store_folder))


@pytest.fixture
def bare_tool(tmp_path: Path) -> Command:
    """The tools without any source."""
    return Command(tmp_path / "work")
