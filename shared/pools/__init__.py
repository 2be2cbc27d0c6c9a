"""Worker pools: heartbeats, load signals, and how many workers a pool should have.

Owns the scaling of one pool and the division of one machine between pools. Knows no individual jobs and starts no
process.
"""
