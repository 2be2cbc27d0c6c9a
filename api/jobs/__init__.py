"""Runs rerank requests as jobs: submission, waiting, ranking, fallbacks and the reconciler.

The only part of the API that uses the ledger. Knows nothing of HTTP or of the dialects' formats.
"""
