"""The demo: `python -m seamless_remote.demo` runs transformations on real services on this machine.

`steps` has the steps, `programs` the user programs they run, `sandbox` the temporary HOME they run
in, `local_cluster` the cluster definition. The tests use `local_cluster` too.
"""
