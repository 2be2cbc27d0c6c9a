"""Benchmarks: programs that print measurements. None of them is a test."""
