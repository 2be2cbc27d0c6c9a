"""The Celery queue that wakes workers: its one configuration and the exact bytes of its messages.

Refuses to carry state: a message names a shard, and the ledger knows the rest.
"""
