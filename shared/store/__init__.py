"""The Redis store: connections with explicit timeouts, and Lua scripts that share round trips.

Owns the scripts in `lua/`. Refuses to know jobs: see shared.ledger.
"""
