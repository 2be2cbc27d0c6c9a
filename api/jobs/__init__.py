"""From a canonical request to a ranked result: submission, waiting, ranking, fallbacks, and the reconciler.

The only part of the API that talks to the ledger. Refuses HTTP and the shapes of dialects.
"""
