"""One run of one case by one peer: `python measured`, in the peer's virtualenv.

It reads the task as JSON, and prints the report as one line of JSON. The driver starts it by its
path, not as a module of the checkout, whose `seamless_remote` would then hide the published one.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from typing import Any

from task import Task

_PEERS = {
    "ours": "with_seamless.SeamlessPeer",
    "ours-host": "with_seamless.AsyncioHostPeer",
    "ours-trio": "with_seamless.TrioHostPeer",
    "published": "with_seamless.SeamlessPeer",
    "floor": "with_sockets.SocketPeer",
}


def _report(task: Task) -> Any:
    measure = task["measure"]
    if task["peer"] == "curl":
        measure = f"programs.{measure.partition('.')[2]}"
    function = _load(measure)
    # Programs are measured from a small process: what they inherit would count as theirs.
    if measure.startswith("programs."):
        return function(task)
    peer = _load(_PEERS[task["peer"]])()
    if not inspect.iscoroutinefunction(function):
        peer.connect(task)
        return function(peer, task)

    async def main() -> Any:
        peer.connect(task)
        return await function(peer, task)

    return peer.run(main)


def _load(name: str) -> Any:
    module, attribute = name.split(".")
    return getattr(importlib.import_module(module), attribute)


if __name__ == "__main__":
    print("\n" + json.dumps(_report(json.load(sys.stdin))), flush=True)
