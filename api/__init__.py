"""The HTTP API: accepts rerank requests in every dialect and returns results or jobs.

Imports neither the worker nor an engine.
"""

VERSION = "0.1.0"
