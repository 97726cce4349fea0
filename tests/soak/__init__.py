"""The soak: mixed load on real services that are killed, stopped and restarted all the while.

`make soak` runs it, or `python -m soak` in the folder of the tests (see `--help`). At the end
nothing may be lost, wrong, hung or leaked. No test collects it.
"""
