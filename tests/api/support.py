"""Support for the API's tests: records, results, a worker, and an HTTP client for an ASGI app."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from shared.contracts import Document, RankedRow, RerankResult, ShardScores, WorkClass
from shared.keys import queue_keys
from shared.ledger.job_record import JobFailure, JobRecord, JobStatus
from shared.ledger.verdicts import ClaimVerdict
from shared.ledger.worker_ledger import WorkerLedger
from shared.store.client import connect
from tests.shared.support import MODEL, OWNER, make_lease, make_scores


def make_record(job_id: str = "job-1") -> JobRecord:
    return JobRecord(
        id=job_id,
        status=JobStatus.SUCCEEDED,
        model=MODEL,
        dialect="superset",
        owner=OWNER,
        work_class=WorkClass.INTERACTIVE,
        pairs=2,
        pairs_known=0,
        pairs_scored=2,
        shards=1,
        shards_left=0,
        created_ms=1_700_000_000_999,
        started_ms=1_700_000_001_000,
        finished_ms=1_700_000_002_000,
        deadline_ms=0,
        failure=None,
    )


def make_result(*rows: RankedRow, return_documents: bool = True) -> RerankResult:
    default = (RankedRow(index=1, score=0.9, document=Document(text="b")),)
    return RerankResult(
        id="job-1",
        model=MODEL,
        created=1_700_000_000,
        return_documents=return_documents,
        rows=list(rows or default),
        prompt_tokens=7,
    )


@asynccontextmanager
async def http(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client that calls the app directly. Exceptions that the app raises after its response are ignored."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api", timeout=10) as client:
        yield client


class Worker:
    """Processes shards from the model's queues as a worker does, with fixed scores or a fixed failure."""

    def __init__(self, redis_url: str, scores: ShardScores | JobFailure | None = None) -> None:
        self._redis_url = redis_url
        self._scores = scores or make_scores()

    async def process_one(self) -> ClaimVerdict:
        """Wait for a wake-up message, claim its shard and report the scores or the failure."""
        return await asyncio.to_thread(self._process_one)

    def _process_one(self) -> ClaimVerdict:
        with connect(self._redis_url) as client:
            popped: Any = client.brpop([queue_keys.queue(MODEL, work_class) for work_class in WorkClass], timeout=5)
            job_id, shard = json.loads(base64.b64decode(json.loads(popped[1])["body"]))[0]
            ledger = WorkerLedger(client, MODEL)
            claim = ledger.claim(make_lease(shard, job_id=job_id))
            if isinstance(self._scores, JobFailure):
                ledger.fail(make_lease(shard, job_id=job_id), self._scores)
            else:
                ledger.finish(make_lease(shard, job_id=job_id), self._scores, WorkClass.INTERACTIVE)
        return claim.verdict
