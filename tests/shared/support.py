"""What the tests of several packages share: jobs to submit, and a Redis that is away or full."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from hypothesis import HealthCheck, settings

from infra.local.redis_server import free_port
from shared.contracts import Document, RerankRequest, ScoreScale, ShardScores, WorkClass
from shared.ledger import Submission
from shared.worker_ledger import ShardLease

MODEL = "test-model"
OWNER = "owner-1"

properties = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
"""The same examples in every run, and no verdict on how fast a busy machine is."""


def make_request(*texts: str, **fields: object) -> RerankRequest:
    documents = [Document(text=text) for text in texts or ("one", "two")]
    return RerankRequest.model_validate({"query": "a query", "documents": documents} | fields)


def make_submission(
    job_id: str = "job-1",
    *,
    shards: int = 1,
    rung: int | None = None,
    deadline_seconds: float = 60.0,
    request: RerankRequest | None = None,
    idempotency: str | None = None,
) -> Submission:
    """A job of so many shards, cut evenly; the first `rung` of them, or all, are rung for at once."""
    request = request or make_request(*(f"text {number}" for number in range(max(2, shards))))
    return Submission(
        job_id=job_id,
        request=request,
        model=MODEL,
        dialect="superset",
        owner=OWNER,
        work_class=WorkClass.INTERACTIVE,
        sizes=[len(range(shard, len(request.documents), shards)) for shard in range(shards)],
        envelopes=[f"doorbell {job_id}/{shard}".encode() for shard in range(shards if rung is None else rung)],
        deadline_seconds=deadline_seconds,
        idempotency=idempotency,
    )


def make_lease(shard: int = 0, token: str = "token", *, job_id: str = "job-1") -> ShardLease:
    return ShardLease(job_id, shard, token)


def make_scores(*scores: float | None) -> ShardScores:
    return ShardScores(scores=list(scores or (0.25, 0.75)), scale=ScoreScale.SIMILARITY)


def dead_redis_url() -> str:
    """Where no Redis listens."""
    return f"redis://127.0.0.1:{free_port()}/0"


@contextmanager
def out_of_memory(client: redis.Redis) -> Iterator[None]:
    """The store reads, but refuses to write."""
    client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)
