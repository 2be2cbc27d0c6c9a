"""Measurements. Each is a program that prints what it found; none is a test."""
