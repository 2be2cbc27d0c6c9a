"""Starts and stops the workers of this machine as work comes and goes."""
