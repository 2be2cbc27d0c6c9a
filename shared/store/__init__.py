"""The Redis store: connections with explicit timeouts, and Lua scripts run in shared round trips.

Owns the `.lua` files. Refuses to know what a key or a script means: see shared.keys and shared.ledger.
"""
