"""The API's side of the ledger (asyncio): submit, read, cancel, delete, retry, and the reconciler's checks.

Each change is one Lua script; no other code writes these keys. Raises StoreUnavailable when Redis is unreachable or
refuses writes, and StoreDamaged when its data cannot be used.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from secrets import token_hex
from typing import Any

import redis.asyncio

from shared.contracts import RerankRequest, ShardScores, WorkClass
from shared.errors import IdempotencyConflict
from shared.keys import job_keys, queue_keys, service_keys
from shared.ledger import encoding
from shared.ledger.job_record import JobFailure, JobRecord, JobStatus
from shared.ledger.limits import (
    ALONE_AFTER_CRASHES,
    MAX_CRASHES,
    MAX_DEAD_LETTERS,
    MAX_RESEND_SECONDS,
    RESEND_AFTER_CRASH_SECONDS,
    RESEND_SECONDS,
    Lifetimes,
)
from shared.ledger.reconciler_actions import OnAction, ReconcilerAction
from shared.ledger.submission import Acceptance, ExceededLimit, Submission
from shared.partial_results import KnownScores
from shared.queue.messages import WakeUp
from shared.store.client import damaged, is_damage, store_errors
from shared.store.scripts import ScriptCall, ScriptPipeline, script_source
from shared.tracing import current_traceparent

logger = logging.getLogger(__name__)

_STATUSES = {status.value.encode(): status for status in JobStatus}
_MAX_CHECKS = 500
"""Shards or jobs checked in one script call: bounded, because Redis runs nothing else meanwhile."""


class JobLedger:
    """Submits, reads and ends jobs, and runs the reconciler's scripts. For the API."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        lifetimes: Lifetimes | None = None,
        on_action: OnAction = lambda model, action, count: None,
    ) -> None:
        """`on_action` is called with what the reconciler's scripts did."""
        self._client = client
        self._on_action = on_action
        self._pipe = ScriptPipeline(client)
        self._lifetimes = lifetimes or Lifetimes()
        self.listener = token_hex(4)
        """The name of this process in the jobs that it waits for: those that it submits, and others after `listen`."""
        names = ("submit", "listen", "cancel", "delete", "reconcile", "expire", "repair", "retry", "enqueue", "demote")
        self._scripts: dict[str, Any] = {name: client.register_script(script_source(name)) for name in names}

    async def submit(self, submission: Submission) -> Acceptance:
        """Accept a job.

        Raises IdempotencyConflict when its Idempotency-Key was used for another request, RateLimited when its owner
        exceeds a limit, and Overloaded when more work is pending than its limits allow.
        """
        more = [queue_keys.queue(submission.model, submission.work_class)]
        if submission.idempotency is not None:
            more.append(job_keys.idempotency(submission.owner, submission.idempotency))
        request = encoding.encode_request(submission.request)
        shards = submission.encode_shards()
        known, limits = submission.known_scores, submission.limits
        args: list[str | bytes | int | float] = [
            submission.job_id,
            request,
            int((submission.result_seconds or self._lifetimes.result) * 1000),
            int(self._lifetimes.unfinished * 1000),
            int(submission.deadline_seconds * 1000),
            submission.model,
            submission.dialect,
            submission.owner,
            submission.work_class,
            len(submission.request.documents),
            len(shards),
            submission.fingerprint(request, shards) if submission.idempotency is not None else "",
            int(RESEND_SECONDS * 1000),
            b"" if known is None else encoding.encode_known_scores(known, submission.request.documents),
            job_keys.JOB_ENDED_CHANNEL,
            submission.request.priority,
            f"{submission.terms.weight:g}",
            *("" if limit is None else limit for limit in (limits.tokens_ahead, limits.tokens, limits.jobs)),
            service_keys.rate(submission.owner),
            *("" if limit is None else limit for limit in submission.terms.limits.of_jobs),
            submission.batch or "",
            self.listener,
            submission.webhooks,
            *(
                "" if seconds is None else int(seconds * 1000)
                for seconds in (submission.execution_seconds, submission.kept_seconds)
            ),
            current_traceparent(),
            *(part for documents, size in zip(shards, submission.sizes, strict=True) for part in (documents, *size)),
            *submission.messages,
        ]
        with store_errors():
            verdict, job_id, *created = await self._pipe.call(
                ScriptCall(
                    self._scripts["submit"], job_keys.script_keys(submission.job_id, submission.model, *more), args
                )
            )
        if verdict == b"limited":
            raise submission.terms.limits.error(job_id.decode(), int(created[0]))
        if verdict == b"refused":
            raise limits.error(submission.model, ExceededLimit(job_id.decode()), int(created[0]))
        if verdict == b"conflict":
            raise IdempotencyConflict("this Idempotency-Key was used for another request", param="Idempotency-Key")
        return Acceptance(job_id.decode(), verdict == b"existing", int(created[0]) if created else 0)

    async def listen(self, record: JobRecord) -> None:
        """Have this process notified when a job ends that another process submitted. Does nothing for an ended job."""
        await self._on_job("listen", record, self.listener)

    async def read(self, job_id: str) -> JobRecord | None:
        """The job's record; None when the job does not exist."""
        with store_errors():
            return _record(job_id, await self._client.hgetall(job_keys.job(job_id)))

    async def read_finished(self, job_id: str) -> tuple[JobRecord | None, list[ShardScores]]:
        """The record and the accepted scores, in the order of the shards.

        There are fewer scores than shards when the job is deleted meanwhile: a MULTI, which would prevent that, is
        refused by a full Redis.
        """
        with store_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.hgetall(job_keys.job(job_id))
                pipe.hgetall(job_keys.results(job_id))
                fields, results = await pipe.execute()
        with _readable():
            return _record(job_id, fields), [encoding.decode_scores(payload) for payload in _in_order(results)]

    async def read_request(self, job_id: str) -> tuple[RerankRequest, KnownScores | None] | None:
        """The request as it was accepted, and the scores that were known then; None when the job does not exist.

        Documents may be missing when the job is deleted meanwhile.
        """
        with store_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.get(job_keys.request(job_id))
                pipe.hgetall(job_keys.documents(job_id))
                request, parts = await pipe.execute()
        if not request:
            return None
        known = parts.pop(job_keys.KNOWN_SCORES_FIELD, None)
        with _readable():
            return encoding.decode_full_request(request, _in_order(parts), known)

    async def statuses(self, job_ids: list[str]) -> dict[str, JobStatus | None]:
        """The statuses of many jobs in one round trip; None for a job that does not exist or cannot be read."""
        with store_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for job_id in job_ids:
                    pipe.hget(job_keys.job(job_id), "status")
                answers = await pipe.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception) and not is_damage(answer):
                    raise answer
        return {job_id: _STATUSES.get(status) for job_id, status in zip(job_ids, answers, strict=True)}

    async def cancel(self, record: JobRecord) -> JobStatus | None:
        """Cancel a job. Returns its status afterwards; None when the job does not exist."""
        status = await self._on_job("cancel", record, job_keys.JOB_ENDED_CHANNEL)
        return JobStatus(status.decode()) if status else None

    async def demote(self, job_id: str, model: str) -> bool:
        """Move an interactive job to the batch class. Returns False when it has ended or is batch work already."""
        queues = [queue_keys.queue(model, work_class) for work_class in WorkClass]
        with store_errors():
            return bool(await self._scripts["demote"](keys=job_keys.script_keys(job_id, model, *queues), args=[job_id]))

    async def delete(self, record: JobRecord) -> bool:
        """Delete a job and its result. Returns False when the job does not exist."""
        return bool(await self._on_job("delete", record, job_keys.JOB_ENDED_CHANNEL))

    async def delete_jobs(self, jobs: Sequence[tuple[str, str]]) -> None:
        """Delete jobs, given as (id, model); those that have not ended are canceled. Ignores jobs that do not exist."""
        calls = [
            ScriptCall(
                self._scripts["delete"], job_keys.script_keys(job_id, model), [job_id, job_keys.JOB_ENDED_CHANNEL]
            )
            for job_id, model in jobs
        ]
        with store_errors():
            for start in range(0, len(calls), _MAX_CHECKS):
                await asyncio.gather(*(self._pipe.call(call) for call in calls[start : start + _MAX_CHECKS]))

    async def retry_failed(self, record: JobRecord, deadline_seconds: float) -> list[WakeUp] | None:
        """Retry a failed or expired job with new budgets. Returns the shards to enqueue; None for other jobs."""
        shards = await self._on_job(
            "retry", record, int(self._lifetimes.unfinished * 1000), int(deadline_seconds * 1000)
        )
        return None if shards is None else [WakeUp(record.id, int(shard), record.work_class) for shard in shards]

    async def reconcile(self, model: str) -> list[WakeUp]:
        """Check shards whose lease has expired or that no worker has claimed. Returns the shards to enqueue."""
        failure = JobFailure("scoring_failed", f"the worker died {MAX_CRASHES} times while it scored this job")
        queues = [queue_keys.queue(model, work_class) for work_class in WorkClass]
        args = [
            job_keys.job(""),
            _MAX_CHECKS,
            int(RESEND_SECONDS * 1000),
            int(MAX_RESEND_SECONDS * 1000),
            MAX_CRASHES,
            failure.to_json(),
            job_keys.JOB_ENDED_CHANNEL,
            MAX_DEAD_LETTERS,
            ALONE_AFTER_CRASHES,
            int(RESEND_AFTER_CRASH_SECONDS * 1000),
        ]
        with store_errors():
            found, discarded, expired_leases, dead_letters = await self._scripts["reconcile"](
                keys=job_keys.script_keys("", model, *queues, job_keys.DEAD_LETTERS), args=args
            )
        self._on_action(model, ReconcilerAction.LEASES, expired_leases)
        self._on_action(model, ReconcilerAction.DEAD_LETTERS, dead_letters)
        self._on_action(model, ReconcilerAction.DISCARDED, len(discarded))
        self._on_action(model, ReconcilerAction.RESENT, len(found) // 3)
        for job_id in discarded:
            logger.error(
                "a job is discarded: a part of it is missing in the store",
                extra={"job": job_id.decode(errors="replace")[:100]},
            )
        triples = zip(found[::3], found[1::3], found[2::3], strict=True)
        return [WakeUp(job.decode(), int(shard), WorkClass(name.decode())) for job, shard, name in triples]

    async def repair(self, model: str) -> None:
        """Delete a pool's keys that have the wrong type, and restore shards that are missing in its index."""
        queues = [queue_keys.queue(model, work_class) for work_class in WorkClass]
        with store_errors():
            deleted = await self._scripts["repair"](
                keys=job_keys.script_keys("", model, *queues, job_keys.DEAD_LETTERS),
                args=[
                    job_keys.job(""),
                    _MAX_CHECKS,
                    int(RESEND_SECONDS * 1000),
                    *(word for pair in queue_keys.KOMBU_KEYS.items() for word in pair),
                ],
            )
        self._on_action(model, ReconcilerAction.REPAIRED, len(deleted))
        for key in deleted:
            logger.error("a key had the wrong type and was deleted", extra={"redis_key": key.decode()})

    async def expire(self, model: str) -> int:
        """Expire the jobs whose deadline has passed. Returns how many."""
        with store_errors():
            count = int(
                await self._scripts["expire"](
                    keys=job_keys.script_keys("", model),
                    args=[job_keys.job(""), _MAX_CHECKS, job_keys.JOB_ENDED_CHANNEL],
                )
            )
        self._on_action(model, ReconcilerAction.EXPIRED, count)
        return count

    async def enqueue(self, queue: str, messages: list[bytes]) -> None:
        """Push messages to the front of a queue, for shards enqueued before; `queue` is its Redis key."""
        if messages:
            with store_errors():
                await self._scripts["enqueue"](keys=[queue], args=["front", *messages])

    async def _on_job(self, script: str, record: JobRecord, *args: object) -> Any:
        with store_errors():
            return await self._scripts[script](
                keys=job_keys.script_keys(record.id, record.model), args=[record.id, *args]
            )


def _record(job_id: str, fields: Any) -> JobRecord | None:
    with _readable():
        return JobRecord.from_hash(job_id, fields) if fields else None


@contextmanager
def _readable() -> Iterator[None]:
    """Raise StoreDamaged for what cannot be decoded. Names only the error's type: its text may contain a caller's."""
    try:
        yield
    except (ValueError, TypeError, LookupError) as error:
        raise damaged(f"{type(error).__name__} while it was read") from None


def _in_order(by_shard: dict[bytes, bytes]) -> list[bytes]:
    return [by_shard[shard] for shard in sorted(by_shard, key=int)]
