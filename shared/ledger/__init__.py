"""The ledger: the state of every job and shard, in Redis, changed only by Lua scripts.

Owns both sides of it, the API's (asyncio) and the worker's (blocking), and how requests and scores are encoded.
Refuses HTTP, dialects and engines.
"""
