"""What the reconciler's scripts do to jobs, for metrics."""

from collections.abc import Callable
from enum import StrEnum


class ReconcilerAction(StrEnum):
    """What the reconciler's scripts do."""

    LEASES = "expired_leases"
    """Leases of workers that stopped renewing them: each counts as a crash."""
    DEAD_LETTERS = "dead_letters"
    """Shards given up after too many crashes."""
    RESENT = "resent_messages"
    EXPIRED = "expired_jobs"
    """Jobs that passed their deadline."""
    DISCARDED = "discarded_jobs"
    """Jobs whose data was damaged."""
    REPAIRED = "repaired_keys"


OnAction = Callable[[str, ReconcilerAction, int], None]
"""Called with a model, an action and how often it was done, which may be 0."""
