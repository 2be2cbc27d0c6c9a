"""What the worker's side of the ledger passes in and gets back: leases, free slots, claims and verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from shared.contracts import RerankRequest, WorkClass
from shared.queue.messages import WakeUp


class ClaimVerdict(StrEnum):
    """The outcome of claim.lua, and of claim_next.lua for each shard.

    GONE: no such job. ENDED: the job has a final status. DONE: the shard is finished. HELD: another worker has it.
    ALONE: not claimed, because the shard must run alone. DAMAGED: its job had damaged data and was discarded.
    UNREADABLE is added here: claimed, but this worker cannot decode the request.
    """

    RUN = "run"
    UNREADABLE = "unreadable"
    ALONE = "alone"
    DAMAGED = "damaged"
    GONE = "gone"
    ENDED = "ended"
    DONE = "done"
    HELD = "held"


class FinishVerdict(StrEnum):
    """The outcome of finish.lua, fail.lua and requeue.lua.

    STALE: the lease belongs to another claim. ENDED: the job has a final status. FAILED: the retry budget was exceeded
    and the job has failed.
    """

    ACCEPTED = "accepted"
    STALE = "stale"
    ENDED = "ended"
    FAILED = "failed"


class RenewVerdict(StrEnum):
    """The outcome of renew.lua: LIVE continues, ENDED and LOST (another worker has the shard) stop the work."""

    LIVE = "live"
    ENDED = "ended"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class ShardLease:
    """One worker's claim on a shard. Every claim has a new token."""

    job_id: str
    shard: int
    token: str

    def log_fields(self, **more: object) -> dict[str, object]:
        """The fields that name the shard in a log line, and more."""
        return {"job": self.job_id, "shard": self.shard, **more}


@dataclass(frozen=True, slots=True)
class FreeSlots:
    """How many more shards a worker can hold, and how many of them may be batch work."""

    shards: int
    batch: int

    def without(self, wake_ups: Sequence[WakeUp]) -> "FreeSlots":
        """The slots that are left when these shards are claimed."""
        batch = sum(wake_up.work_class is WorkClass.BATCH for wake_up in wake_ups)
        shards = max(0, self.shards - len(wake_ups))
        return FreeSlots(shards, max(0, min(shards, self.batch - batch)))


NO_FREE_SLOTS = FreeSlots(0, 0)


@dataclass(frozen=True, slots=True)
class Claim:
    """The result of a claim. `request` holds this shard's documents, and is present when the verdict is RUN.

    `queue_ms` is the time since the job was accepted, `tokens` the shard's estimated size. `alone`: no other shard may
    be claimed until it is done. `guaranteed`: batch work that was claimed before waiting interactive work, because
    batch work has received less than its share. `traceparent` is the span of the submission, empty when it is not
    traced.
    """

    verdict: ClaimVerdict
    request: RerankRequest | None = None
    queue_ms: float = 0.0
    tokens: int = 0
    alone: bool = False
    guaranteed: bool = False
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """Asks for the shards that are next in the pool's order.

    A request with the same `token` as the worker's last one claims the same shards again. `received` are the wake-up
    messages that the worker holds for these claims; the same number fewer are removed from the queues. `is_idle`: the
    worker holds no shard.
    """

    worker: str
    token: str
    slots: FreeSlots
    received: Sequence[WakeUp] = ()
    is_idle: bool = False


class ClaimedShard(NamedTuple):
    """A shard that was claimed, or that must run alone (see the claim's verdict)."""

    lease: ShardLease
    work_class: WorkClass
    claim: Claim
