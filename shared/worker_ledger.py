"""The worker's half of the ledger, for the jobs of one model: claim, renew, finish, fail, give back. Blocking.

Raises StoreUnavailable when Redis cannot be reached or refuses to write.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import redis

from shared import codec, keys
from shared.celery_app import Envelopes
from shared.contracts import RerankRequest, ShardScores, WorkClass
from shared.jobs import JobFailure
from shared.ledger import DEAD_LIST_LENGTH, REPEAT_RING_SECONDS, Lifetimes
from shared.redis_client import store_errors
from shared.scripts import job_script_keys, script_source

LEASE_SECONDS = 4.0
"""A worker that is silent for this long has lost its shards. Recovery from a kill takes this and a round more."""
TRANSIENT_ERRORS_ALLOWED = 5


class ClaimVerdict(StrEnum):
    """What claim.lua answers."""

    RUN = "run"
    GONE = "gone"
    ENDED = "ended"
    DONE = "done"
    HELD = "held"


class FinishVerdict(StrEnum):
    """What finish.lua, fail.lua and requeue.lua answer; FAILED: over its budget, the job has failed."""

    ACCEPTED = "accepted"
    STALE = "stale"
    ENDED = "ended"
    FAILED = "failed"


class RenewVerdict(StrEnum):
    """What renew.lua answers: go on, stop since the job has ended, stop since somebody else has the shard."""

    LIVE = "live"
    ENDED = "ended"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class ShardLease:
    """A shard in one worker's hands. The token is new for every claim."""

    job_id: str
    shard: int
    token: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim's answer; `request`, with this shard's documents alone, is there when the verdict is RUN.

    `queue_ms` is the wait since the job was accepted. `alone`: it may bring a worker down, and must have no company.
    """

    verdict: ClaimVerdict
    request: RerankRequest | None = None
    queue_ms: float = 0.0
    alone: bool = False


class WorkerLedger:
    """Safe to share between threads."""

    def __init__(
        self,
        client: redis.Redis,
        model: str,
        envelopes: Envelopes | None = None,
        *,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        """Without `envelopes` nothing is rung for: the reconciler will."""
        self._client = client
        self._model = model
        self._envelopes = envelopes
        self._lease_ms = int(lease_seconds * 1000)
        self._ceiling_ms = int(Lifetimes().unfinished * 1000)
        self._repeat_ms = int(REPEAT_RING_SECONDS * 1000)
        names = ("claim", "renew", "finish", "fail", "requeue", "ring")
        self._scripts: dict[str, Any] = {name: client.register_script(script_source(name)) for name in names}

    def claim(self, lease: ShardLease) -> Claim:
        """Take a shard."""
        with store_errors():
            verdict, *rest = self._call("claim", lease, self._lease_ms, keys.FINISHED_CHANNEL)
        if verdict != b"run":
            return Claim(ClaimVerdict(verdict.decode()))
        head, documents, queue_ms, alone = rest
        return Claim(ClaimVerdict.RUN, codec.decode_request(head, [documents]), float(queue_ms), bool(alone))

    def renew(self, leases: Sequence[ShardLease]) -> list[RenewVerdict]:
        """Keep the shards, all in one round trip; answers for each what is to be done with it."""
        with store_errors(), self._client.pipeline(transaction=False) as pipe:
            for lease in leases:
                self._call("renew", lease, self._lease_ms, keys.FINISHED_CHANNEL, client=pipe)
            return [RenewVerdict(answer.decode()) for answer in pipe.execute()]

    def finish(self, lease: ShardLease, scores: ShardScores, work_class: WorkClass) -> FinishVerdict:
        """Hand in a shard's scores and ring for the job's next one. Not ACCEPTED means that they were dropped."""
        payload = codec.encode_scores(scores)
        with store_errors():
            verdict, next_shard = self._call(
                "finish", lease, payload, keys.FINISHED_CHANNEL, self._ceiling_ms, self._repeat_ms
            )
            if next_shard >= 0:
                self._ring(lease.job_id, next_shard, work_class, "back")
        return FinishVerdict(verdict.decode())

    def fail(self, lease: ShardLease, failure: JobFailure) -> FinishVerdict:
        """End the job: this shard can never be scored."""
        with store_errors():
            answer = self._call("fail", lease, failure.to_json(), keys.FINISHED_CHANNEL)
        return FinishVerdict(answer.decode())

    def give_back(self, lease: ShardLease, work_class: WorkClass) -> FinishVerdict:
        """Somebody else shall score it, at once and free of charge."""
        with store_errors():
            answer = self._requeue(lease, "drain", REPEAT_RING_SECONDS, JobFailure("", ""))
            if answer is FinishVerdict.ACCEPTED:
                self._ring(lease.job_id, lease.shard, work_class, "front")
        return answer

    def retry_later(self, lease: ShardLease, after_seconds: float, failure: JobFailure) -> FinishVerdict:
        """It shall be tried again later; over its budget the job fails with `failure`."""
        with store_errors():
            return self._requeue(lease, "transient", after_seconds, failure)

    def _requeue(self, lease: ShardLease, kind: str, after_seconds: float, failure: JobFailure) -> FinishVerdict:
        args = (
            kind,
            int(after_seconds * 1000),
            TRANSIENT_ERRORS_ALLOWED,
            failure.to_json(),
            keys.FINISHED_CHANNEL,
            DEAD_LIST_LENGTH,
        )
        return FinishVerdict(self._call("requeue", lease, *args, more_keys=(keys.DEAD,)).decode())

    def _ring(self, job_id: str, shard: int, work_class: WorkClass, end: Literal["front", "back"]) -> None:
        if self._envelopes is not None:
            envelope = self._envelopes.build(keys.queue_name(self._model, work_class), job_id, shard)
            self._scripts["ring"](keys=[keys.queue(self._model, work_class)], args=[end, envelope])

    def _call(
        self,
        script: str,
        lease: ShardLease,
        *args: object,
        more_keys: Sequence[str] = (),
        client: Any = None,
    ) -> Any:
        return self._scripts[script](
            keys=job_script_keys(lease.job_id, self._model, *more_keys),
            args=[lease.job_id, lease.shard, lease.token, *args],
            client=client,
        )
