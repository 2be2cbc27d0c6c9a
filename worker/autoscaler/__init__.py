"""Starts and stops the worker processes of one machine according to the load of their pools.

Refuses to decide how many workers a pool needs: shared.pools decides.
"""
