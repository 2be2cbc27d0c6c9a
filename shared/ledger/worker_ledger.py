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

from shared.contracts import RerankRequest, ShardScores, WorkClass
from shared.errors import StoreUnavailable
from shared.keys import job_keys, queue_keys
from shared.ledger import encoding
from shared.ledger.job_ledger import MAX_DEAD_LETTERS, RESEND_SECONDS, Lifetimes
from shared.ledger.job_record import JobFailure
from shared.queue.messages import MessageBuilder, WakeUp, parse_message
from shared.store.client import store_errors
from shared.store.scripts import ScriptCall, call_scripts, script_source

logger = logging.getLogger(__name__)

LEASE_SECONDS = 4.0
"""A worker that is silent for this long has lost its shards. Recovery from a kill takes this and a round more."""
MAX_TRANSIENT_ERRORS = 5
MAX_INLINE_RESULT_BYTES = 4096
"""A result of a single shard up to this size goes out with the news of it, to every API process: a hundred scores."""
_MIN_LISTEN_SECONDS = 0.01
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
class FreeSlots:
    """How many shards may come, and how many of them of batch work."""

    shards: int
    batch: int

    def without(self, wake_ups: Sequence[WakeUp]) -> "FreeSlots":
        """What is left when these have come."""
        batch = sum(wake_up.work_class is WorkClass.BATCH for wake_up in wake_ups)
        shards = max(0, self.shards - len(wake_ups))
        return FreeSlots(shards, max(0, min(shards, self.batch - batch)))


NO_FREE_SLOTS = FreeSlots(0, 0)


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
        messages: MessageBuilder | None = None,
        *,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        """Without `messages` nothing is rung for: the reconciler will."""
        self._client = client
        self._model = model
        self._envelopes = messages
        self._lease_ms = int(lease_seconds * 1000)
        self._ceiling_ms = int(Lifetimes().unfinished * 1000)
        self._repeat_ms = int(RESEND_SECONDS * 1000)
        names = ("claim", "renew", "finish", "fail", "requeue", "enqueue", "dequeue", "discard")
        self._scripts: dict[str, Any] = {name: client.register_script(script_source(name)) for name in names}

    def claim(self, lease: ShardLease, *, alone: bool = True) -> Claim:
        """Take a shard. `alone`: it would have no company, so that one that may not have any can be taken too."""
        return self.claim_all([lease], alone=alone)[0]

    def claim_all(self, leases: Sequence[ShardLease], *, alone: bool) -> list[Claim]:
        """Take several shards, all in one round trip; see `claim`."""
        args = (self._lease_ms, job_keys.JOB_ENDED_CHANNEL, int(alone))
        ended = [b"ended"]
        return [_read_claim(answer) for answer in self._on_each("claim", leases, args, ended)]

    def renew(self, leases: Sequence[ShardLease]) -> list[RenewVerdict]:
        """Keep the shards, all in one round trip; answers for each what is to be done with it."""
        args = (self._lease_ms, job_keys.JOB_ENDED_CHANNEL)
        return [RenewVerdict(answer.decode()) for answer in self._on_each("renew", leases, args, b"ended")]

    def finish(self, lease: ShardLease, scores: ShardScores, work_class: WorkClass) -> FinishVerdict:
        """Hand in a shard's scores and ring for the job's next one. Not ACCEPTED means that they were dropped."""
        return self.finish_and_dequeue([(lease, scores, work_class)], NO_FREE_SLOTS)[0][0]

    def finish_and_dequeue(
        self, finishes: Sequence[tuple[ShardLease, ShardScores, WorkClass]], room: FreeSlots
    ) -> tuple[list[FinishVerdict], list[WakeUp]]:
        """Hand in scores as `finish` does, and take as many wake_ups as there is room for, in one round trip.

        Interactive work comes first. A message that cannot be read is logged, and left out.
        """
        limits = (job_keys.JOB_ENDED_CHANNEL, self._ceiling_ms, self._repeat_ms, MAX_INLINE_RESULT_BYTES)
        calls = [self._of("finish", lease, encoding.encode_scores(scores), *limits) for lease, scores, _ in finishes]
        if room.shards:
            queues = [queue_keys.queue(self._model, work_class) for work_class in WorkClass]
            calls.append(ScriptCall(self._scripts["dequeue"], queues, (room.shards, room.batch)))
        with store_errors():
            answers = call_scripts(self._client, calls) if calls else []
        finished = [
            self._or_discard(lease, answer, [b"ended", -1])
            for (lease, _, _), answer in zip(finishes, answers, strict=False)
        ]
        # A queue that is none is the reconciler's to mend.
        taken = [answer for answer in answers[len(finishes) :] if not isinstance(answer, Exception)]
        following = [
            WakeUp(lease.job_id, next_shard, work_class)
            for (lease, _, work_class), (_, next_shard) in zip(finishes, finished, strict=True)
            if next_shard >= 0
        ]
        self.enqueue(following, "back")
        wake_ups = [
            self._read_wake_up(message, work_class)
            for by_class in taken
            for work_class, messages in zip(WorkClass, by_class, strict=True)
            for message in messages
        ]
        verdicts = [FinishVerdict(verdict.decode()) for verdict, _ in finished]
        return verdicts, [wake_up for wake_up in wake_ups if wake_up is not None]

    def wait_for_wake_up(self, seconds: float, *, batch: bool) -> WakeUp | None:
        """Wait for one wake_up, interactive work first; batch work only if it is wanted."""
        classes = list(WorkClass) if batch else [WorkClass.INTERACTIVE]
        queues = {queue_keys.queue(self._model, work_class).encode(): work_class for work_class in classes}
        with store_errors():
            heard: Any = self._client.brpop(list(queues), timeout=max(seconds, _MIN_LISTEN_SECONDS))
        return self._read_wake_up(heard[1], queues[heard[0]]) if heard else None

    def fail(self, lease: ShardLease, failure: JobFailure) -> FinishVerdict:
        """End the job: this shard can never be scored."""
        return FinishVerdict(self._call("fail", lease, failure.to_json(), job_keys.JOB_ENDED_CHANNEL).decode())

    def release(self, lease: ShardLease, work_class: WorkClass) -> FinishVerdict:
        """Somebody else shall score it, at once and free of charge."""
        answer = self._requeue(lease, "drain", RESEND_SECONDS, JobFailure("", ""))
        if answer is FinishVerdict.ACCEPTED:
            self.enqueue([WakeUp(lease.job_id, lease.shard, work_class)])
        return answer

    def retry_later(self, lease: ShardLease, after_seconds: float, failure: JobFailure) -> FinishVerdict:
        """It shall be tried again later; over its budget the job fails with `failure`."""
        return self._requeue(lease, "transient", after_seconds, failure)

    def _requeue(self, lease: ShardLease, kind: str, after_seconds: float, failure: JobFailure) -> FinishVerdict:
        args = (
            kind,
            int(after_seconds * 1000),
            MAX_TRANSIENT_ERRORS,
            failure.to_json(),
            job_keys.JOB_ENDED_CHANNEL,
            MAX_DEAD_LETTERS,
        )
        return FinishVerdict(self._call("requeue", lease, *args, more_keys=(job_keys.DEAD_LETTERS,)).decode())

    def enqueue(self, wake_ups: Sequence[WakeUp], end: Literal["front", "back"] = "front") -> None:
        """Ring: in front, for what has waited its time. Raises nothing: what cannot be rung now costs seconds.

        The ledger knows of the shard, and the reconciler rings.
        """
        if self._envelopes is None or not wake_ups:
            return
        calls = []
        for wake_up in wake_ups:
            message = self._envelopes.build(
                queue_keys.queue_name(self._model, wake_up.work_class), wake_up.job_id, wake_up.shard
            )
            calls.append(
                ScriptCall(
                    self._scripts["enqueue"], [queue_keys.queue(self._model, wake_up.work_class)], (end, message)
                )
            )
        try:
            with store_errors():
                for answer in call_scripts(self._client, calls):
                    if isinstance(answer, Exception):
                        raise answer
        except StoreUnavailable as error:
            logger.warning("%d wake_ups could not be rung, the reconciler will: %s", len(calls), error)

    def _read_wake_up(self, message: bytes, work_class: WorkClass) -> WakeUp | None:
        if (named := parse_message(message)) is None:
            # Without its text: what is no message of ours may say anything.
            logger.warning("a message in %s cannot be read, it is left out", queue_keys.queue(self._model, work_class))
            return None
        return WakeUp(*named, work_class)

    def _of(self, script: str, lease: ShardLease, *args: object) -> ScriptCall:
        keys = job_keys.script_keys(lease.job_id, self._model)
        return ScriptCall(self._scripts[script], keys, (lease.job_id, lease.shard, lease.token, *args))

    def _call(self, script: str, lease: ShardLease, *args: object, more_keys: Sequence[str] = ()) -> Any:
        call = self._of(script, lease, *args)
        with store_errors():
            (answer,) = call_scripts(self._client, [replace(call, keys=[*call.keys, *more_keys])])
        return self._or_discard(lease, answer, b"ended")

    def _on_each(self, script: str, leases: Sequence[ShardLease], args: Sequence[object], ended: Any) -> list[Any]:
        """The answers of a script for several shards, in one round trip."""
        with store_errors():
            answers = call_scripts(self._client, [self._of(script, lease, *args) for lease in leases])
        return [self._or_discard(lease, answer, ended) for lease, answer in zip(leases, answers, strict=True)]

    def _or_discard(self, lease: ShardLease, answer: Any, ended: Any) -> Any:
        """The answer, or, where the job's record cannot be worked with, `ended`: the job then is."""
        if not isinstance(answer, Exception):
            return answer
        logger.error("job %s is given up, the store has something else in its place: %.200s", lease.job_id, answer)
        try:
            with store_errors():
                call_scripts(self._client, [self._of("discard", lease, job_keys.JOB_ENDED_CHANNEL)])
        except StoreUnavailable as error:
            logger.warning("the reconciler will give up job %s: %s", lease.job_id, error)
        return ended


def _read_claim(answer: Sequence[Any]) -> Claim:
    verdict, *rest = answer
    if verdict != b"run":
        return Claim(ClaimVerdict(verdict.decode()))
    head, documents, queue_ms, tokens = rest
    try:
        return Claim(ClaimVerdict.RUN, encoding.decode_shard_request(head, documents), float(queue_ms), int(tokens))
    except (ValueError, TypeError) as error:
        # No more than the kind: pydantic's text has the caller's in it. Not raised: the neighbours are leased too.
        logger.error("a shard was claimed whose request cannot be read: %s", type(error).__name__)
        return Claim(ClaimVerdict.UNREADABLE)
