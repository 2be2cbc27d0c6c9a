"""The worker's side of the ledger (blocking), for the jobs of one model: claim, renew, finish, fail, release.

Raises StoreUnavailable when Redis is unreachable or refuses writes. A job whose data is damaged is discarded with a log
line; the worker sees it as ended.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import redis

from shared.contracts import ShardScores, WorkClass
from shared.errors import StoreUnavailable
from shared.keys import job_keys, pool_keys, queue_keys
from shared.ledger import encoding
from shared.ledger.job_record import JobFailure
from shared.ledger.limits import (
    BATCH_SHARE,
    LEASE_SECONDS,
    MAX_DEAD_LETTERS,
    MAX_INLINE_RESULT_BYTES,
    MAX_TRANSIENT_ERRORS,
    RESEND_SECONDS,
    Lifetimes,
)
from shared.ledger.verdicts import (
    Claim,
    ClaimedShard,
    ClaimRequest,
    ClaimVerdict,
    FinishVerdict,
    RenewVerdict,
    ShardLease,
)
from shared.queue.messages import MessageBuilder, WakeUp, parse_message
from shared.store.client import store_errors
from shared.store.scripts import ScriptCall, call_scripts, script_source

logger = logging.getLogger(__name__)

_MIN_LISTEN_SECONDS = 0.01
"""BRPOP treats a timeout under a millisecond as no timeout."""


class WorkerLedger:
    """The jobs of one model. Safe to share between threads."""

    def __init__(
        self,
        client: redis.Redis,
        model: str,
        messages: MessageBuilder | None = None,
        *,
        lease_seconds: float = LEASE_SECONDS,
        batch_share: float = BATCH_SHARE,
    ) -> None:
        """Without `messages` no wake-up message is sent; the reconciler sends them later.

        `batch_share` (0 to below 1) is the least share of the pool's tokens that batch work gets.
        """
        self._client = client
        self._model = model
        self._messages = messages
        self._lease_ms = int(lease_seconds * 1000)
        self._unfinished_ms = int(Lifetimes().unfinished * 1000)
        self._resend_ms = int(RESEND_SECONDS * 1000)
        self._batch_share = batch_share
        names = ("claim", "claim_next", "renew", "finish", "fail", "requeue", "enqueue", "discard")
        self._scripts: dict[str, Any] = {name: client.register_script(script_source(name)) for name in names}

    def claim(self, lease: ShardLease, *, alone: bool = True) -> Claim:
        """Claim a shard by name, whatever the order.

        `alone`: the worker holds no other shard, so one that must run alone can be claimed, too.
        """
        args = (self._lease_ms, job_keys.JOB_ENDED_CHANNEL, int(alone))
        return _read_claim(self._on_each("claim", [lease], args, [b"ended"])[0])

    def renew(self, leases: Sequence[ShardLease]) -> list[RenewVerdict]:
        """Renew the leases in one round trip. Returns a verdict for each."""
        args = (self._lease_ms, job_keys.JOB_ENDED_CHANNEL)
        return [RenewVerdict(answer.decode()) for answer in self._on_each("renew", leases, args, b"ended")]

    def finish(self, lease: ShardLease, scores: ShardScores, work_class: WorkClass) -> FinishVerdict:
        """Report a shard's scores and enqueue the job's next shard. Scores count only if the verdict is ACCEPTED."""
        return self.finish_and_claim([(lease, scores, work_class)], None)[0][0]

    def finish_and_claim(
        self, finishes: Sequence[tuple[ShardLease, ShardScores, WorkClass]], request: ClaimRequest | None
    ) -> tuple[list[FinishVerdict], list[ClaimedShard]]:
        """Report scores as `finish` does, and claim the next shards of the pool's order, in one round trip.

        Safe to repeat with the same arguments after a lost reply.
        """
        limits = (job_keys.JOB_ENDED_CHANNEL, self._unfinished_ms, self._resend_ms, MAX_INLINE_RESULT_BYTES)
        calls = [
            self._script_call("finish", lease, encoding.encode_scores(scores), *limits) for lease, scores, _ in finishes
        ]
        if request is not None:
            calls.append(self._claim_call(request))
        with store_errors():
            answers = call_scripts(self._client, calls) if calls else []
        finished = [
            self._or_discard(lease, answer, [b"ended", -1])
            for (lease, _, _), answer in zip(finishes, answers, strict=False)
        ]
        next_shards = [
            WakeUp(lease.job_id, next_shard, work_class)
            for (lease, _, work_class), (_, next_shard) in zip(finishes, finished, strict=True)
            if next_shard >= 0
        ]
        self.enqueue(next_shards, "back")
        claimed = [] if request is None else self._read_claims(request, answers[-1])
        return [FinishVerdict(verdict.decode()) for verdict, _ in finished], claimed

    def _claim_call(self, request: ClaimRequest) -> ScriptCall:
        queues = [queue_keys.queue(self._model, work_class) for work_class in WorkClass]
        keys = job_keys.script_keys("", self._model, *queues, pool_keys.claims(self._model, request.worker))
        counts = Counter(wake_up.work_class for wake_up in request.received)
        args = (
            job_keys.job(""),
            request.token,
            self._lease_ms,
            job_keys.JOB_ENDED_CHANNEL,
            int(request.is_idle),
            request.slots.shards,
            request.slots.batch,
            self._batch_share,
            *(counts[work_class] for work_class in WorkClass),
        )
        return ScriptCall(self._scripts["claim_next"], keys, args)

    def _read_claims(self, request: ClaimRequest, answer: Any) -> list[ClaimedShard]:
        """Parse the claims, and send the received messages again whose shards still wait."""
        if isinstance(answer, Exception):
            # The pool's keys are damaged: the reconciler repairs them and sends the messages again.
            logger.error("the order of a pool is damaged", extra={"model": self._model, "error": answer})
            return []
        claims, *again = answer
        for work_class, count in zip(WorkClass, again, strict=True):
            received = [wake_up for wake_up in request.received if wake_up.work_class is work_class]
            self.enqueue(received[len(received) - count :])
        claimed = []
        for job, shard, work_class, guaranteed, *rest in claims:
            job_id, claim = job.decode(errors="replace"), replace(_read_claim(rest), guaranteed=bool(guaranteed))
            if claim.verdict is ClaimVerdict.DAMAGED:
                logger.error("a job is discarded, its data in the store is damaged", extra={"job": job_id})
            else:
                lease = ShardLease(job_id, int(shard), f"{request.token}:{job_id}/{int(shard)}")
                claimed.append(ClaimedShard(lease, WorkClass(work_class.decode()), claim))
        return claimed

    def wait_for_wake_up(self, seconds: float, *, batch: bool) -> WakeUp | None:
        """Wait for one wake-up message, interactive ones first; `batch` includes the batch queue."""
        classes = list(WorkClass) if batch else [WorkClass.INTERACTIVE]
        queues = {queue_keys.queue(self._model, work_class).encode(): work_class for work_class in classes}
        with store_errors():
            popped: Any = self._client.brpop(list(queues), timeout=max(seconds, _MIN_LISTEN_SECONDS))
        return self._read_wake_up(popped[1], queues[popped[0]]) if popped else None

    def fail(self, lease: ShardLease, failure: JobFailure) -> FinishVerdict:
        """Fail the job: this shard can never be scored."""
        return FinishVerdict(self._call("fail", lease, failure.to_json(), job_keys.JOB_ENDED_CHANNEL).decode())

    def release(self, lease: ShardLease, work_class: WorkClass) -> FinishVerdict:
        """Return a shard to the queue at once, without charging an attempt, for another worker."""
        answer = self._requeue(lease, "drain", RESEND_SECONDS, JobFailure("", ""))
        if answer is FinishVerdict.ACCEPTED:
            self.enqueue([WakeUp(lease.job_id, lease.shard, work_class)])
        return answer

    def retry_later(self, lease: ShardLease, after_seconds: float, failure: JobFailure) -> FinishVerdict:
        """Return a shard to be retried later; when its retry budget is exceeded, the job fails with `failure`."""
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
        """Push wake-up messages, to the front of the queue for shards that were already enqueued once.

        Raises nothing: the ledger knows the shards, and the reconciler sends the messages later.
        """
        if self._messages is None or not wake_ups:
            return
        calls = []
        for wake_up in wake_ups:
            message = self._messages.build(
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
            logger.warning(
                "wake-up messages could not be sent, the reconciler sends them later",
                extra={"messages": len(calls), "error": error},
            )

    def _read_wake_up(self, message: bytes, work_class: WorkClass) -> WakeUp | None:
        if (named := parse_message(message)) is None:
            # Not its text: a foreign message may contain anything.
            logger.warning(
                "skipped a message that cannot be read", extra={"queue": queue_keys.queue(self._model, work_class)}
            )
            return None
        return WakeUp(*named, work_class)

    def _script_call(self, script: str, lease: ShardLease, *args: object) -> ScriptCall:
        keys = job_keys.script_keys(lease.job_id, self._model)
        return ScriptCall(self._scripts[script], keys, (lease.job_id, lease.shard, lease.token, *args))

    def _call(self, script: str, lease: ShardLease, *args: object, more_keys: Sequence[str] = ()) -> Any:
        call = self._script_call(script, lease, *args)
        with store_errors():
            (answer,) = call_scripts(self._client, [replace(call, keys=[*call.keys, *more_keys])])
        return self._or_discard(lease, answer, b"ended")

    def _on_each(self, script: str, leases: Sequence[ShardLease], args: Sequence[object], ended: Any) -> list[Any]:
        """The results of a script for several shards, in one round trip."""
        with store_errors():
            answers = call_scripts(self._client, [self._script_call(script, lease, *args) for lease in leases])
        return [self._or_discard(lease, answer, ended) for lease, answer in zip(leases, answers, strict=True)]

    def _or_discard(self, lease: ShardLease, answer: Any, ended: Any) -> Any:
        """The script's result. If the job's data is damaged, discard the job and return `ended`."""
        if not isinstance(answer, Exception):
            return answer
        logger.error("a job is discarded, its data in the store is damaged", extra=lease.log_fields(error=answer))
        try:
            with store_errors():
                call_scripts(self._client, [self._script_call("discard", lease, job_keys.JOB_ENDED_CHANNEL)])
        except StoreUnavailable as error:
            logger.warning(
                "a job could not be discarded, the reconciler does it later", extra=lease.log_fields(error=error)
            )
        return ended


def _read_claim(answer: Sequence[Any]) -> Claim:
    verdict, *claimed = answer
    if verdict != b"run":
        return Claim(ClaimVerdict(verdict.decode()))
    request, documents, queue_ms, tokens, alone, traceparent = claimed
    try:
        return Claim(
            ClaimVerdict.RUN,
            encoding.decode_shard_request(request, documents),
            float(queue_ms),
            int(tokens),
            alone=bool(alone),
            traceparent=traceparent.decode(errors="replace"),
        )
    except (ValueError, TypeError) as error:
        # Only the type: pydantic's message contains the caller's text. Not raised: other shards were claimed as well.
        logger.error("claimed a shard whose request cannot be decoded", extra={"error": type(error).__name__})
        return Claim(ClaimVerdict.UNREADABLE)
