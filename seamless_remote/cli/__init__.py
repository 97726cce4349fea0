"""The command-line tools: `seamless-resolve`, and `seamless-fingertip`, which can recompute.

Modules here import Seamless, anyio and the clients inside functions only, so that `--help`,
`--version` and a usage error respond at once.
"""
