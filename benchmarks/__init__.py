"""Benchmarks: this package beside the published one, plain tools and the floor, on real services.

`make bench` runs them. This package starts things, runs each peer in turn and reports; it needs
only the standard library. What is measured is in the folder `measured`, which runs as a program of
its own in the environment of the peer.
"""
