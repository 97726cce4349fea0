"""The bench, started once, and stages on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import bench as slurm
import pytest
from bench import Bench
from stages import SlurmHome


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    absent = slurm.missing()
    if absent is not None:
        raise pytest.UsageError(absent)


@pytest.fixture(scope="session")
def bench(own_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A SLURM with one node."""
    with closing(Bench(tmp_path_factory.mktemp("slurm"))) as started:
        started.start()
        yield started


@pytest.fixture(scope="module")
def stage(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmHome]:
    """The README's stage, which goes on from one test of a module to the next."""
    with closing(SlurmHome(tmp_path_factory.mktemp("stage") / "home", bench)) as home:
        yield home


@pytest.fixture
def own_stage(bench: Bench, tmp_path: Path) -> Iterator[Callable[..., SlurmHome]]:
    """Makes stages for one test: the README's, with changes to its queue."""
    with ExitStack() as stack:

        def make(**changes: object) -> SlurmHome:
            return stack.enter_context(closing(SlurmHome(tmp_path / "home", bench, **changes)))

        yield make
