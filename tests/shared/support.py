"""Shared by the tests of several packages: jobs to submit, a view of the store, and a Redis that is down or full."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from hypothesis import HealthCheck, settings

from infra.local.redis_server import free_port
from shared.contracts import Document, RerankRequest, ScoreScale, ShardScores, WorkClass
from shared.keys import job_keys, pool_keys, queue_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobRecord
from shared.ledger.submission import PendingLimits, Submission
from shared.ledger.verdicts import ShardLease
from shared.owner_limits import OwnerLimits, OwnerTerms
from shared.partial_results import KnownScores
from shared.sharding import ShardSize

JOB = "job-1"
MODEL = "test-model"
OWNER = "owner-1"

properties = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
"""The same examples in every run, without a deadline: the machine may be busy."""


def make_request(*texts: str, **fields: object) -> RerankRequest:
    documents = [Document(text=text) for text in texts or ("one", "two")]
    return RerankRequest.model_validate({"query": "a query", "documents": documents} | fields)


def make_size(pairs: int, shard: int = 0) -> ShardSize:
    """A size whose tokens differ for every shard of a job."""
    return ShardSize(pairs, 10 * pairs + shard)


def make_submission(
    job_id: str = JOB,
    *,
    shards: int = 1,
    enqueued: int | None = None,
    deadline_seconds: float = 60.0,
    request: RerankRequest | None = None,
    work_class: WorkClass = WorkClass.INTERACTIVE,
    idempotency: str | None = None,
    known_scores: KnownScores | None = None,
    owner: str = OWNER,
    weight: float = 1.0,
    sizes: list[ShardSize] | None = None,
    limits: PendingLimits | None = None,
    owner_limits: OwnerLimits | None = None,
) -> Submission:
    """A job whose documents are divided evenly into `shards`. The first `enqueued` of them, or all, have a message.

    `known_scores` covers documents that are in no shard. `sizes` replaces the sizes of the shards.
    """
    request = request or make_request(*(f"text {number}" for number in range(max(2, shards))))
    scored = known_scores.documents_to_score(request.documents) if known_scores else request.documents
    return Submission(
        job_id=job_id,
        request=request,
        model=MODEL,
        dialect="superset",
        owner=owner,
        terms=OwnerTerms(weight, owner_limits or OwnerLimits()),
        work_class=work_class,
        sizes=sizes or [make_size(len(range(shard, len(scored), shards)), shard) for shard in range(shards)],
        messages=[f"message {job_id}/{shard}".encode() for shard in range(shards if enqueued is None else enqueued)],
        deadline_seconds=deadline_seconds,
        idempotency=idempotency,
        known_scores=known_scores,
        limits=limits or PendingLimits(),
    )


def make_lease(shard: int = 0, token: str = "token", *, job_id: str = JOB) -> ShardLease:
    return ShardLease(job_id, shard, token)


def make_scores(*scores: float | None) -> ShardScores:
    return ShardScores(scores=list(scores or (0.25, 0.75)), scale=ScoreScale.SIMILARITY)


class StoreView:
    """Reads the ledger's keys directly, and makes shards due or leases expire without waiting."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def outstanding(self) -> list[str]:
        return [member.decode() for member in self._client.zrange(pool_keys.outstanding(MODEL), 0, -1)]

    def deadlines(self) -> list[str]:
        return [member.decode() for member in self._client.zrange(pool_keys.deadlines(MODEL), 0, -1)]

    def shard(self, shard: int = 0, *, job_id: str = JOB) -> dict[str, str]:
        """The fields of a shard, without its number and its size."""
        fields = self._client.hgetall(job_keys.shards(job_id))
        start = f"{shard}:"
        named = {
            name.decode().removeprefix(start): value.decode()
            for name, value in fields.items()
            if name.decode().startswith(start)
        }
        return {name: value for name, value in named.items() if name not in ShardSize._fields}

    def size(self, shard: int = 0, *, job_id: str = JOB) -> ShardSize:
        """The size of a shard."""
        fields = self._client.hmget(job_keys.shards(job_id), [f"{shard}:{name}" for name in ShardSize._fields])
        return ShardSize(*map(int, fields))

    def lease(self, shard: int = 0, *, job_id: str = JOB) -> str | None:
        """The token of the shard's lease; None without a lease."""
        token = self._client.get(job_keys.lease(job_id, shard))
        return token.decode() if token else None

    def messages(self, work_class: WorkClass = WorkClass.INTERACTIVE) -> list[bytes]:
        """The queue's messages, the next one to be popped first."""
        messages: list[bytes] = self._client.lrange(queue_keys.queue(MODEL, work_class), 0, -1)
        return messages[::-1]

    def drop_messages(self) -> None:
        """Delete all messages, as if a worker had popped them and died."""
        self._client.delete(*(queue_keys.queue(MODEL, work_class) for work_class in WorkClass))

    def dead_letters(self) -> list[dict[str, Any]]:
        return [json.loads(entry) for entry in self._client.lrange(job_keys.DEAD_LETTERS, 0, -1)]

    def now_ms(self) -> int:
        seconds, microseconds = self._client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def wait_for_next_millisecond(self) -> None:
        """Jobs accepted afterwards are younger than those before."""
        before = self.now_ms()
        while self.now_ms() == before:
            pass

    def due_in_seconds(self, shard: int = 0, *, job_id: str = JOB) -> float:
        """The seconds until the reconciler checks the shard."""
        return float(self._client.zscore(pool_keys.outstanding(MODEL), f"{job_id}/{shard}") - self.now_ms()) / 1000

    def remaining_seconds(self, key: str | bytes) -> float:
        """The seconds until the key expires."""
        return float(self._client.pttl(key)) / 1000

    def make_due(self, *shards: int, job_id: str = JOB) -> None:
        """Let the reconciler check the shards now."""
        self._client.zadd(pool_keys.outstanding(MODEL), {f"{job_id}/{shard}": 0 for shard in shards or (0,)}, xx=True)

    def end_lease(self, *shards: int, job_id: str = JOB) -> None:
        """Let the leases expire, and the reconciler check the shards now."""
        self._client.delete(*(job_keys.lease(job_id, shard) for shard in shards or (0,)))
        self.make_due(*shards, job_id=job_id)

    def pass_deadline(self, job_id: str = JOB) -> None:
        self._client.hset(job_keys.job(job_id), "deadline_ms", 1)
        self._client.zadd(pool_keys.deadlines(MODEL), {job_id: 1}, xx=True)


async def read_record(ledger: JobLedger, job_id: str = JOB) -> JobRecord:
    """The record of an existing job."""
    record = await ledger.read(job_id)
    assert record is not None
    return record


def read_message(message: bytes) -> tuple[str, int]:
    """The job and the shard that a Celery message names."""
    job_id, shard = json.loads(base64.b64decode(json.loads(message)["body"]))[0]
    return job_id, shard


def dead_redis_url() -> str:
    """A URL where no Redis listens."""
    return f"redis://127.0.0.1:{free_port()}/0"


@contextmanager
def out_of_memory(client: redis.Redis) -> Iterator[None]:
    """Redis has reached its memory limit: it reads, but refuses to write."""
    client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)
