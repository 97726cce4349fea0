"""Where a test's calls come from, and what the launcher is asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from leaks import watch_tasks
from loops import run

import seamless_remote
from seamless_remote import Settings
from seamless_remote.client import close_all_clients

HOSTS = {
    "asyncio-host": ("asyncio", True),
    "trio-host": ("trio", True),
    "asyncio-alone": ("asyncio", False),
    "trio-alone": ("trio", False),
    "uvloop-alone": ("uvloop", False),
}


@dataclass
class Host:
    """Runs a test's body in a loop of a kind, with a host's nursery around it or without one."""

    kind: str
    has_nursery: bool
    settings: Settings

    def run(self, body: Callable[[], Awaitable[Any]]) -> Any:
        """Run it; afterwards nothing of ours is left in its loop."""

        async def main() -> Any:
            if not self.has_nursery:
                return await body()
            async with seamless_remote.open_nursery(self.settings):
                return await body()

        try:
            return run(self.kind, watch_tasks(main))
        finally:
            close_all_clients()


class LaunchLog:
    """Notes what the real launcher is asked to run.

    `before` is called first, with the tool; `after` when the launcher has come to its end.
    """

    def __init__(self, real: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.before: Callable[[str], object] = lambda tool: None
        self.after: Callable[[str], object] = lambda tool: None
        self.tools: list[str] = []
        self._real = real

    def run(self, launch_dict: dict[str, Any]) -> dict[str, Any]:
        tool = launch_dict["key"].split("-")[0]
        self.tools.append(tool)
        self.before(tool)
        result = self._real(launch_dict)
        self.after(tool)
        return result
