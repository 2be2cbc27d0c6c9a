"""Contracts, the Redis ledger and the queue: the code that both the API and the workers import. Imports neither."""
