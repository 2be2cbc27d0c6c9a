"""Batches under faults: their input, the faults, and the checks of what they leave.

Owns all that is particular to batches. Refuses load, clusters and reports, which it shares with the other faults.
"""
