"""One run of one case by one peer: `python measured TASK.json`, in the peer's environment.

It prints one line of JSON, the report. It is started by its path, not as a module of the checkout,
for the checkout's `seamless_remote` would then hide the published one.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict

_PEERS = {
    "ours": ("with_seamless", "SeamlessPeer"),
    "ours-host": ("with_seamless", "AsyncioHostPeer"),
    "ours-trio": ("with_seamless", "TrioHostPeer"),
    "published": ("with_seamless", "SeamlessPeer"),
    "floor": ("with_sockets", "SocketPeer"),
}
_OF_PROGRAMS = ("commands", "cluster")


def main() -> None:
    """Run the task that the argument's file holds."""
    with open(sys.argv[1]) as file:
        task = json.load(file)
    module, name = task["measure"].split(".")
    if task["peer"] == "curl":
        module = "commands"
    # Programs are measured from a small process: what they inherit would count as theirs.
    if module in _OF_PROGRAMS:
        report = getattr(importlib.import_module(module), name)(task)
    else:
        peer_module, peer_class = _PEERS[task["peer"]]
        peer = getattr(importlib.import_module(peer_module), peer_class)()
        report = getattr(importlib.import_module(module), name)(peer, task)
    print("\n" + json.dumps(asdict(report)), flush=True)


if __name__ == "__main__":
    main()
