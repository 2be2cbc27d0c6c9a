"""Batches: files of requests, and jobs of many requests. Validates them, runs their lines as jobs, and writes results.

Owns what a line is, the order of the results, and the processes that run batches. Refuses HTTP and how a job is scored.
"""
