"""The command-line tools: `seamless-resolve`, and `seamless-fingertip`, which can recompute.

Modules here import Seamless, anyio and the clients only inside functions, so that `--help`,
`--version` and a mistyped command answer at once.
"""
