"""A laptop and its frontend, where there is an OpenSSH server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import seamless_config.cluster
import seamless_config.config_files
import seamless_config.select
from laptop import Laptop

from seamless_remote.demo.frontend import find_sshd

# The summary of the run says so (see tests/conftest.py).
collect_ignore_glob = ["test_*.py"] if find_sshd() is None else []


@pytest.fixture
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Laptop]:
    """A laptop; its HOME and PATH are set in this process, too."""
    laptop = Laptop(tmp_path / "laptop", tmp_path / "frontend")
    monkeypatch.setenv("HOME", str(laptop.path))
    monkeypatch.setenv("PATH", laptop.env["PATH"])
    try:
        yield laptop
    finally:
        laptop.close()


@pytest.fixture
def select(
    laptop: Laptop, fresh_remote: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Selects one of the laptop's clusters in this process, as its configuration would."""

    def put(variant: str) -> None:
        monkeypatch.setattr(seamless_config.cluster, "_clusters", {})
        monkeypatch.setattr(seamless_config.cluster, "_local_cluster", None)
        monkeypatch.setattr(seamless_config.select, "_current_cluster", variant)
        monkeypatch.setattr(seamless_config.select, "_current_project", laptop.project_name)
        monkeypatch.setattr(seamless_config.select, "_current_stage", None)
        seamless_config.config_files.load_tools()
        seamless_config.cluster.define_clusters(laptop.clusters)

    return put
