"""Worker pools: heartbeats, load signals, and how many workers a pool should have.

Owns one pool and the division of one machine between pools. Refuses to know single jobs, and starts no process.
"""
