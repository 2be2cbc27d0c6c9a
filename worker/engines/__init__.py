"""Engines score batches of pairs: their interface, the lexical engine, and the vLLM engine.

Refuses to know queues, jobs and Redis.
"""
