"""The worker's half of the ledger, for the jobs of one model: claim, renew, finish, fail, give back. Blocking.

Raises StoreUnavailable when Redis cannot be reached or refuses to write. A job whose record is damaged is given up,
with a line in the log: for its worker it has ended.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal

import redis

from shared import keys
from shared.contracts import RerankRequest, ShardScores, WorkClass
from shared.errors import StoreUnavailable
from shared.ledger import encoding
from shared.ledger.job_ledger import DEAD_LIST_LENGTH, REPEAT_RING_SECONDS, Lifetimes
from shared.ledger.job_record import JobFailure
from shared.queue.celery_app import Envelopes, read_envelope
from shared.store.client import store_errors
from shared.store.scripts import Call, call_all, job_script_keys, script_source

logger = logging.getLogger(__name__)

LEASE_SECONDS = 4.0
"""A worker that is silent for this long has lost its shards. Recovery from a kill takes this and a round more."""
TRANSIENT_ERRORS_ALLOWED = 5
TOLD_BYTES = 4096
"""A result of a single shard up to this size goes out with the news of it, to every API process: a hundred scores."""
_LISTEN_AT_LEAST_SECONDS = 0.01
"""Redis takes less than a millisecond for no limit at all."""


class ClaimVerdict(StrEnum):
    """What claim.lua answers. ALONE: it must run without company, and was not taken.

    UNREADABLE, which is said here: it was taken, and what it asks makes no sense to this worker.
    """

    RUN = "run"
    UNREADABLE = "unreadable"
    ALONE = "alone"
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
class Doorbell:
    """What a message says: look at this shard."""

    job_id: str
    shard: int
    work_class: WorkClass


@dataclass(frozen=True, slots=True)
class Room:
    """How many shards may come, and how many of them of batch work."""

    shards: int
    batch: int

    def without(self, doorbells: Sequence[Doorbell]) -> "Room":
        """What is left when these have come."""
        batch = sum(bell.work_class is WorkClass.BATCH for bell in doorbells)
        shards = max(0, self.shards - len(doorbells))
        return Room(shards, max(0, min(shards, self.batch - batch)))


NO_ROOM = Room(0, 0)


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim's answer; `request`, with this shard's documents alone, is there when the verdict is RUN.

    `queue_ms` is the wait since the job was accepted, `tokens` the shard's estimated size.
    """

    verdict: ClaimVerdict
    request: RerankRequest | None = None
    queue_ms: float = 0.0
    tokens: int = 0


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
        names = ("claim", "renew", "finish", "fail", "requeue", "enqueue", "dequeue", "discard")
        self._scripts: dict[str, Any] = {name: client.register_script(script_source(name)) for name in names}

    def claim(self, lease: ShardLease, *, alone: bool = True) -> Claim:
        """Take a shard. `alone`: it would have no company, so that one that may not have any can be taken too."""
        return self.claim_all([lease], alone=alone)[0]

    def claim_all(self, leases: Sequence[ShardLease], *, alone: bool) -> list[Claim]:
        """Take several shards, all in one round trip; see `claim`."""
        args = (self._lease_ms, keys.FINISHED_CHANNEL, int(alone))
        ended = [b"ended"]
        return [_read_claim(answer) for answer in self._on_each("claim", leases, args, ended)]

    def renew(self, leases: Sequence[ShardLease]) -> list[RenewVerdict]:
        """Keep the shards, all in one round trip; answers for each what is to be done with it."""
        args = (self._lease_ms, keys.FINISHED_CHANNEL)
        return [RenewVerdict(answer.decode()) for answer in self._on_each("renew", leases, args, b"ended")]

    def finish(self, lease: ShardLease, scores: ShardScores, work_class: WorkClass) -> FinishVerdict:
        """Hand in a shard's scores and ring for the job's next one. Not ACCEPTED means that they were dropped."""
        return self.exchange([(lease, scores, work_class)], NO_ROOM)[0][0]

    def exchange(
        self, finishes: Sequence[tuple[ShardLease, ShardScores, WorkClass]], room: Room
    ) -> tuple[list[FinishVerdict], list[Doorbell]]:
        """Hand in scores as `finish` does, and take as many doorbells as there is room for, in one round trip.

        Interactive work comes first. A message that cannot be read is logged, and left out.
        """
        limits = (keys.FINISHED_CHANNEL, self._ceiling_ms, self._repeat_ms, TOLD_BYTES)
        calls = [self._of("finish", lease, encoding.encode_scores(scores), *limits) for lease, scores, _ in finishes]
        if room.shards:
            queues = [keys.queue(self._model, work_class) for work_class in WorkClass]
            calls.append(Call(self._scripts["dequeue"], queues, (room.shards, room.batch)))
        with store_errors():
            answers = call_all(self._client, calls) if calls else []
        finished = [
            self._or_give_up(lease, answer, [b"ended", -1])
            for (lease, _, _), answer in zip(finishes, answers, strict=False)
        ]
        # A queue that is none is the reconciler's to mend.
        taken = [answer for answer in answers[len(finishes) :] if not isinstance(answer, Exception)]
        following = [
            Doorbell(lease.job_id, next_shard, work_class)
            for (lease, _, work_class), (_, next_shard) in zip(finishes, finished, strict=True)
            if next_shard >= 0
        ]
        self.ring(following, "back")
        doorbells = [
            self._read_doorbell(message, work_class)
            for by_class in taken
            for work_class, messages in zip(WorkClass, by_class, strict=True)
            for message in messages
        ]
        verdicts = [FinishVerdict(verdict.decode()) for verdict, _ in finished]
        return verdicts, [doorbell for doorbell in doorbells if doorbell is not None]

    def listen(self, seconds: float, *, batch: bool) -> Doorbell | None:
        """Wait for one doorbell, interactive work first; batch work only if it is wanted."""
        classes = list(WorkClass) if batch else [WorkClass.INTERACTIVE]
        queues = {keys.queue(self._model, work_class).encode(): work_class for work_class in classes}
        with store_errors():
            heard: Any = self._client.brpop(list(queues), timeout=max(seconds, _LISTEN_AT_LEAST_SECONDS))
        return self._read_doorbell(heard[1], queues[heard[0]]) if heard else None

    def fail(self, lease: ShardLease, failure: JobFailure) -> FinishVerdict:
        """End the job: this shard can never be scored."""
        return FinishVerdict(self._call("fail", lease, failure.to_json(), keys.FINISHED_CHANNEL).decode())

    def give_back(self, lease: ShardLease, work_class: WorkClass) -> FinishVerdict:
        """Somebody else shall score it, at once and free of charge."""
        answer = self._requeue(lease, "drain", REPEAT_RING_SECONDS, JobFailure("", ""))
        if answer is FinishVerdict.ACCEPTED:
            self.ring([Doorbell(lease.job_id, lease.shard, work_class)])
        return answer

    def retry_later(self, lease: ShardLease, after_seconds: float, failure: JobFailure) -> FinishVerdict:
        """It shall be tried again later; over its budget the job fails with `failure`."""
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

    def ring(self, doorbells: Sequence[Doorbell], end: Literal["front", "back"] = "front") -> None:
        """Ring: in front, for what has waited its time. Raises nothing: what cannot be rung now costs seconds.

        The ledger knows of the shard, and the reconciler rings.
        """
        if self._envelopes is None or not doorbells:
            return
        calls = []
        for bell in doorbells:
            envelope = self._envelopes.build(keys.queue_name(self._model, bell.work_class), bell.job_id, bell.shard)
            calls.append(Call(self._scripts["enqueue"], [keys.queue(self._model, bell.work_class)], (end, envelope)))
        try:
            with store_errors():
                for answer in call_all(self._client, calls):
                    if isinstance(answer, Exception):
                        raise answer
        except StoreUnavailable as error:
            logger.warning("%d doorbells could not be rung, the reconciler will: %s", len(calls), error)

    def _read_doorbell(self, message: bytes, work_class: WorkClass) -> Doorbell | None:
        if (named := read_envelope(message)) is None:
            # Without its text: what is no message of ours may say anything.
            logger.warning("a message in %s cannot be read, it is left out", keys.queue(self._model, work_class))
            return None
        return Doorbell(*named, work_class)

    def _of(self, script: str, lease: ShardLease, *args: object) -> Call:
        job_keys = job_script_keys(lease.job_id, self._model)
        return Call(self._scripts[script], job_keys, (lease.job_id, lease.shard, lease.token, *args))

    def _call(self, script: str, lease: ShardLease, *args: object, more_keys: Sequence[str] = ()) -> Any:
        call = self._of(script, lease, *args)
        with store_errors():
            (answer,) = call_all(self._client, [replace(call, keys=[*call.keys, *more_keys])])
        return self._or_give_up(lease, answer, b"ended")

    def _on_each(self, script: str, leases: Sequence[ShardLease], args: Sequence[object], ended: Any) -> list[Any]:
        """The answers of a script for several shards, in one round trip."""
        with store_errors():
            answers = call_all(self._client, [self._of(script, lease, *args) for lease in leases])
        return [self._or_give_up(lease, answer, ended) for lease, answer in zip(leases, answers, strict=True)]

    def _or_give_up(self, lease: ShardLease, answer: Any, ended: Any) -> Any:
        """The answer, or, where the job's record cannot be worked with, `ended`: the job then is."""
        if not isinstance(answer, Exception):
            return answer
        logger.error("job %s is given up, the store has something else in its place: %.200s", lease.job_id, answer)
        try:
            with store_errors():
                call_all(self._client, [self._of("discard", lease, keys.FINISHED_CHANNEL)])
        except StoreUnavailable as error:
            logger.warning("the reconciler will give up job %s: %s", lease.job_id, error)
        return ended


def _read_claim(answer: Sequence[Any]) -> Claim:
    verdict, *rest = answer
    if verdict != b"run":
        return Claim(ClaimVerdict(verdict.decode()))
    head, documents, queue_ms, tokens = rest
    try:
        return Claim(ClaimVerdict.RUN, encoding.decode_shard(head, documents), float(queue_ms), int(tokens))
    except (ValueError, TypeError) as error:
        # No more than the kind: pydantic's text has the caller's in it. Not raised: the neighbours are leased too.
        logger.error("a shard was claimed whose request cannot be read: %s", type(error).__name__)
        return Claim(ClaimVerdict.UNREADABLE)
