"""The remote nursery: scopes, supervision, hosts, bounds, calls. Knows nothing of HTTP."""
