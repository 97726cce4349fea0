"""Stands in for remote-http-launcher: what each launch comes to is the test's choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import remote_http_launcher


class PlayedLaunches:
    """`play` is called with the number of a launch (1, 2, ...), and gives a port or raises."""

    def __init__(self) -> None:
        self.count = 0
        self.play: Callable[[int], int] = self._refuse

    def run(self, launch_dict: dict[str, Any]) -> dict[str, Any]:
        """What `remote_http_launcher.run` does."""
        # A store that is launched again is to have its former port, if that is free.
        if "port_start" in launch_dict and launch_dict["port_start"] == launch_dict["port_end"]:
            raise self._refusal()
        self.count += 1
        return {"hostname": "127.0.0.1", "port": self.play(self.count)}

    def refuse(self) -> int:
        """The launch fails."""
        raise self._refusal()

    def _refuse(self, number: int) -> int:
        return self.refuse()

    @staticmethod
    def _refusal() -> Exception:
        error: Exception = remote_http_launcher.LauncherError("there is no room for it")
        return error
