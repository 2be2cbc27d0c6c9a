"""From a wake-up message to reported scores: claim, score, renew, finish, drain.

The only part of the worker that talks to the ledger. Does not know how an engine scores.
"""
