"""The ledger: the truth about jobs and shards. Every change is one Lua script; nothing else writes these keys.

This is the API's half, asyncio: submit, read, cancel, delete, and the reconciler's rounds. The worker's half is
worker_ledger.py. Raises StoreUnavailable when Redis cannot be reached or refuses to write,
StoreDamaged when what it holds cannot be used.
"""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio

from shared.contracts import RerankRequest, ShardScores, WorkClass
from shared.errors import IdempotencyConflict
from shared.keys import job_keys, queue_keys
from shared.ledger import encoding
from shared.ledger.job_record import JobFailure, JobRecord, JobStatus
from shared.partial_results import KnownScores
from shared.queue.messages import WakeUp
from shared.sharding import ShardSize
from shared.store.client import damaged, is_damage, store_errors
from shared.store.scripts import ScriptCall, ScriptPipeline, script_source

logger = logging.getLogger(__name__)

RESEND_SECONDS = 5.0
"""How long a doorbell may go unheard before it is rung again; doubled for every further time."""
RESEND_AFTER_CRASH_SECONDS = 1.0
MAX_RESEND_SECONDS = 300.0
MAX_CRASHES = 4
"""The crash that fails the job. A worker may die for many reasons that no job has to answer for."""
ALONE_AFTER_CRASHES = 2
"""Once may be chance, and a dying worker charges every shard in it: only then is a shard tried without company."""
MAX_DEAD_LETTERS = 1000
_STATES = {state.value.encode(): state for state in JobStatus}
_ROUND = 500
"""Shards or jobs looked after in one script: bounded, since Redis does nothing else meanwhile."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long a job's keys live, in seconds: after its end, and at most when it never ends."""

    result: float = 3600.0
    unfinished: float = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Submission:
    """What the ledger needs to accept a job.

    `rest` is what of the request no shard holds, None when the shards hold all of it. `sizes` are those of the
    shards, in order; without any shard the job has succeeded at once. `messages` are the Celery
    messages of the shards that are rung for at once, the first ones; the others follow as these are done.
    `idempotency` is the caller's key.
    """

    job_id: str
    request: RerankRequest
    model: str
    dialect: str
    owner: str
    work_class: WorkClass
    sizes: list[ShardSize]
    messages: list[bytes]
    deadline_seconds: float
    idempotency: str | None = None
    rest: KnownScores | None = None


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The job that stands for a submission; `existing` when its Idempotency-Key was known.

    `created_ms` is when it was accepted, Unix milliseconds of Redis's clock; 0 for an existing one.
    """

    job_id: str
    existing: bool
    created_ms: int = field(default=0, compare=False)


class JobLedger:
    """The API's half."""

    def __init__(self, client: redis.asyncio.Redis, lifetimes: Lifetimes | None = None) -> None:
        self._client = client
        self._pipe = ScriptPipeline(client)
        self._lifetimes = lifetimes or Lifetimes()
        names = ("submit", "cancel", "delete", "reconcile", "expire", "repair", "retry", "enqueue")
        self._scripts: dict[str, Any] = {name: client.register_script(script_source(name)) for name in names}

    async def submit(self, submission: Submission) -> Acceptance:
        """Accept a job. Raises IdempotencyConflict when its key stands for another request."""
        more = [queue_keys.queue(submission.model, submission.work_class)]
        if submission.idempotency is not None:
            more.append(job_keys.idempotency(submission.owner, submission.idempotency))
        head = encoding.encode_request(submission.request)
        slices = _slices(submission)
        args: list[str | bytes | int] = [
            submission.job_id,
            head,
            int(self._lifetimes.result * 1000),
            int(self._lifetimes.unfinished * 1000),
            int(submission.deadline_seconds * 1000),
            submission.model,
            submission.dialect,
            submission.owner,
            submission.work_class,
            len(submission.request.documents),
            len(slices),
            _fingerprint(submission, head, slices) if submission.idempotency is not None else "",
            int(RESEND_SECONDS * 1000),
            b""
            if submission.rest is None
            else encoding.encode_known_scores(submission.rest, submission.request.documents),
            job_keys.JOB_ENDED_CHANNEL,
            *(part for documents, size in zip(slices, submission.sizes, strict=True) for part in (documents, *size)),
            *submission.messages,
        ]
        with store_errors():
            verdict, job_id, *created = await self._pipe.call(
                ScriptCall(
                    self._scripts["submit"], job_keys.script_keys(submission.job_id, submission.model, *more), args
                )
            )
        if verdict == b"conflict":
            raise IdempotencyConflict("this Idempotency-Key stands for another request", param="Idempotency-Key")
        return Acceptance(job_id.decode(), verdict == b"existing", int(created[0]) if created else 0)

    async def read(self, job_id: str) -> JobRecord | None:
        """The job's record, None when there is none."""
        with store_errors():
            return _record(job_id, await self._client.hgetall(job_keys.job(job_id)))

    async def read_finished(self, job_id: str) -> tuple[JobRecord | None, list[ShardScores]]:
        """The record and the accepted scores, shard by shard.

        A job that is deleted meanwhile has fewer of them than shards. Not MULTI: a full Redis refuses that.
        """
        with store_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.hgetall(job_keys.job(job_id))
                pipe.hgetall(job_keys.results(job_id))
                fields, results = await pipe.execute()
        with _readable():
            return _record(job_id, fields), [encoding.decode_scores(payload) for payload in _in_order(results)]

    async def read_request(self, job_id: str) -> tuple[RerankRequest, KnownScores | None] | None:
        """The request as it was accepted, and what of it no shard holds; None when it is gone.

        Of a job that is deleted meanwhile perhaps a part.
        """
        with store_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.get(job_keys.request(job_id))
                pipe.hgetall(job_keys.documents(job_id))
                head, parts = await pipe.execute()
        if not head:
            return None
        rest = parts.pop(job_keys.KNOWN_SCORES_FIELD, None)
        with _readable():
            return encoding.decode_full_request(head, _in_order(parts), rest)

    async def statuses(self, job_ids: list[str]) -> dict[str, JobStatus | None]:
        """The states of many jobs in one round trip; None for a job that is gone, or cannot be read."""
        with store_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for job_id in job_ids:
                    pipe.hget(job_keys.job(job_id), "status")
                answers = await pipe.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception) and not is_damage(answer):
                    raise answer
        return {job_id: _STATES.get(state) for job_id, state in zip(job_ids, answers, strict=True)}

    async def cancel(self, record: JobRecord) -> JobStatus | None:
        """Cancel a job; answers the state it is in afterwards, None when it is gone."""
        state = await self._on_job("cancel", record, job_keys.JOB_ENDED_CHANNEL)
        return JobStatus(state.decode()) if state else None

    async def delete(self, record: JobRecord) -> bool:
        """Remove a job and its result; False when it was gone already."""
        return bool(await self._on_job("delete", record, job_keys.JOB_ENDED_CHANNEL))

    async def retry_failed(self, record: JobRecord, deadline_seconds: float) -> list[WakeUp] | None:
        """Try a failed job again with fresh budgets; answers what to ring for, None when it has not failed."""
        shards = await self._on_job(
            "retry", record, int(self._lifetimes.unfinished * 1000), int(deadline_seconds * 1000)
        )
        return None if shards is None else [WakeUp(record.id, int(shard), record.work_class) for shard in shards]

    async def reconcile(self, model: str) -> list[WakeUp]:
        """Look after shards whose lease ran out or whose doorbell nobody heard; answers what to ring for."""
        failure = JobFailure("scoring_failed", f"the worker died {MAX_CRASHES} times while it scored this job")
        queues = [queue_keys.queue(model, work_class) for work_class in WorkClass]
        args = [
            job_keys.job(""),
            _ROUND,
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
            found, given_up = await self._scripts["reconcile"](
                keys=job_keys.script_keys("", model, *queues, job_keys.DEAD_LETTERS), args=args
            )
        for job_id in given_up:
            logger.error("job %.100s is given up: the store has lost a part of it", job_id.decode(errors="replace"))
        triples = zip(found[::3], found[1::3], found[2::3], strict=True)
        return [WakeUp(job.decode(), int(shard), WorkClass(name.decode())) for job, shard, name in triples]

    async def repair(self, model: str) -> None:
        """Repair what somebody else has done to a pool's keys."""
        queues = [queue_keys.queue(model, work_class) for work_class in WorkClass]
        with store_errors():
            removed = await self._scripts["repair"](
                keys=job_keys.script_keys("", model, *queues, job_keys.DEAD_LETTERS),
                args=[
                    job_keys.job(""),
                    _ROUND,
                    int(RESEND_SECONDS * 1000),
                    *(word for pair in queue_keys.KOMBU_KEYS.items() for word in pair),
                ],
            )
        for key in removed:
            logger.error("%s was not what rerankq keeps there, it is removed", key.decode())

    async def expire(self, model: str) -> int:
        """End the jobs whose deadline has passed; answers how many."""
        with store_errors():
            return int(
                await self._scripts["expire"](
                    keys=job_keys.script_keys("", model), args=[job_keys.job(""), _ROUND, job_keys.JOB_ENDED_CHANNEL]
                )
            )

    async def enqueue(self, queue: str, messages: list[bytes]) -> None:
        """Push doorbells for work that has waited long enough; `queue` as Redis sees it."""
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
    """Whatever cannot be read inside the block is damaged. Only its kind is told: its text may hold a caller's."""
    try:
        yield
    except (ValueError, TypeError, LookupError) as error:
        raise damaged(f"{type(error).__name__} while it was read") from None


def _slices(submission: Submission) -> list[bytes]:
    """Each shard's documents."""
    documents = submission.request.documents
    if submission.rest is not None:
        documents = submission.rest.documents_to_score(documents)
    slices: list[bytes] = []
    start = 0
    for size in submission.sizes:
        slices.append(encoding.encode_documents(documents[start : start + size.pairs]))
        start += size.pairs
    return slices


def _fingerprint(submission: Submission, head: bytes, slices: list[bytes]) -> str:
    """What makes two requests the same: all that was asked, and how; not how it is cut, or what is known of it."""
    is_one_piece = submission.rest is None and len(slices) == 1
    documents = slices[0] if is_one_piece else encoding.encode_documents(submission.request.documents)
    digest = hashlib.sha256(f"{submission.dialect}\n".encode())
    for part in (head, documents):
        digest.update(b"%d:" % len(part) + part)
    return digest.hexdigest()


def _in_order(by_shard: dict[bytes, bytes]) -> list[bytes]:
    return [by_shard[shard] for shard in sorted(by_shard, key=int)]
