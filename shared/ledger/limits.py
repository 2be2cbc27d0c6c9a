"""Times and budgets of the ledger: lifetimes of jobs, leases, resends, crashes and retries."""

from dataclasses import dataclass

RESEND_SECONDS = 5.0
"""A wake-up message is sent again when no worker has claimed its shard after this time; each resend doubles it."""
RESEND_AFTER_CRASH_SECONDS = 1.0
MAX_RESEND_SECONDS = 300.0
MAX_CRASHES = 4
"""The crash that fails the job. Workers also die for reasons that have nothing to do with the job."""
ALONE_AFTER_CRASHES = 2
"""After this many crashes a shard runs alone. One may be chance: a dying worker charges all of its shards."""
MAX_TRANSIENT_ERRORS = 5
MAX_DEAD_LETTERS = 1000
LEASE_SECONDS = 4.0
"""A worker that does not renew for this long loses its shards. Recovery takes this and one reconciler round."""
BATCH_SHARE = 0.1
"""The least share of a pool's tokens that batch work gets while interactive work would take all of them."""
MAX_INLINE_RESULT_BYTES = 4096
"""A one-shard result up to this size (about a hundred scores) is published with the notification of its job's end."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long the keys of a job live, in seconds: `result` after its end, `unfinished` when it never ends."""

    result: float = 3600.0
    unfinished: float = 7 * 86400.0
