"""One run of one case by one peer: `python measured TASK.json`, in the peer's environment.

It prints one line of JSON, the report. It is started by its path, not as a module of the checkout,
for the checkout's `seamless_remote` would then hide the published one.
"""

from __future__ import annotations

import importlib
import json
import sys

_PEERS = {
    "ours": ("with_seamless", "SeamlessPeer"),
    "ours-host": ("with_seamless", "AsyncioHostPeer"),
    "ours-trio": ("with_seamless", "TrioHostPeer"),
    "published": ("with_seamless", "SeamlessPeer"),
    "floor": ("with_sockets", "SocketPeer"),
    "asks": ("with_asks", "AsksPeer"),
}


def main() -> None:
    """Run the task that the argument's file holds."""
    with open(sys.argv[1]) as file:
        task = json.load(file)
    # Programs are measured from a small process: what they inherit would count as theirs.
    if task["peer"] == "curl" or task["measure"].startswith("commands."):
        name = task["measure"].partition(".")[2]
        report = getattr(importlib.import_module("commands"), name)(task)
    else:
        module, name = task["measure"].split(".")
        peer_module, peer_class = _PEERS[task["peer"]]
        peer = getattr(importlib.import_module(peer_module), peer_class)()
        report = getattr(importlib.import_module(module), name)(peer, task)
    print("\n" + json.dumps(report.as_dict()), flush=True)


if __name__ == "__main__":
    main()
