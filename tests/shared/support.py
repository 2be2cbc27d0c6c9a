"""What the tests of several packages share: jobs to submit, and a Redis that is away or full."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from hypothesis import HealthCheck, settings

from infra.local.redis_server import free_port
from shared.contracts import Document, RerankRequest, ScoreScale, ShardScores, WorkClass
from shared.ledger import Submission

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
    deadline_seconds: float | None = None,
    request: RerankRequest | None = None,
) -> Submission:
    return Submission(
        job_id=job_id,
        request=request or make_request(),
        model=MODEL,
        dialect="superset",
        owner=OWNER,
        work_class=WorkClass.INTERACTIVE,
        envelopes=[f"doorbell {job_id}/{shard}".encode() for shard in range(shards)],
        deadline_seconds=deadline_seconds,
    )


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
