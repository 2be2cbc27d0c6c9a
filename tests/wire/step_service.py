"""One API process on a real Redis, whose jobs end step by step as the test says: its answers are the same in each run.

The test stands in for the worker: it claims shards and reports through the worker's side of the ledger.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import redis

from api import composition
from api.background_tasks import cancel_and_wait
from api.batches.main import make_runner
from api.settings import ApiSettings
from shared.contracts import WorkClass
from shared.keys import pool_keys
from shared.ledger.job_record import JobFailure
from shared.ledger.verdicts import ShardLease
from shared.ledger.worker_ledger import WorkerLedger
from shared.models import ModelRegistry, ModelSpec
from tests.api.routes.test_job_events import serving
from tests.shared.support import MODEL, make_lease, make_scores

FAILURE = JobFailure("scoring_failed", "the engine failed")


class StepService:
    """`client` calls the API. A context manager."""

    def __init__(self, client: httpx.AsyncClient, store: redis.Redis, batches: ApiSettings) -> None:
        """`batches`: the settings of the batch runner."""
        self.client = client
        self._store = store
        self._ledger = WorkerLedger(store, MODEL)
        self._batches = batches
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> "StepService":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()

    async def claim(self) -> ShardLease:
        """Wait for a wake-up message, and claim its shard."""
        wake_up = await asyncio.to_thread(self._ledger.wait_for_wake_up, 5.0, batch=True)
        assert wake_up is not None
        lease = make_lease(wake_up.shard, job_id=wake_up.job_id)
        self._ledger.claim(lease)
        return lease

    def finish(self, lease: ShardLease, *scores: float) -> None:
        """Report these scores of a claimed shard, by default those of two documents."""
        self._ledger.finish(lease, make_scores(*scores), WorkClass.INTERACTIVE)

    def fail(self, lease: ShardLease) -> None:
        """Report that a claimed shard cannot be scored."""
        self._ledger.fail(lease, FAILURE)

    def expire(self, job_id: str) -> None:
        """Let the job's deadline pass. The reconciler looks twice a second."""
        self._store.zadd(pool_keys.deadlines(MODEL), {job_id: 1}, xx=True)

    async def run_batches(self) -> None:
        """Start a batch runner, which runs until the service is closed."""
        registry = ModelRegistry([ModelSpec(name=MODEL)])
        parts = composition.build(self._batches, registry)
        self._opened.push_async_callback(parts.close)
        await parts.pools.refresh()
        runner = make_runner(parts, self._batches, registry)
        tasks = [asyncio.create_task(part.run()) for part in (runner, parts.completions, parts.pools)]
        self._opened.push_async_callback(cancel_and_wait, tasks)


@asynccontextmanager
async def step_service(redis_url: str, folder: Path, **settings: Any) -> AsyncIterator[StepService]:
    """A running service, which stores files in the folder."""
    settings["payloads"] = str(folder / "payloads")
    batches = ApiSettings(redis_url=redis_url, **settings)
    with redis.Redis.from_url(redis_url) as store:
        async with serving(redis_url, **settings) as client, StepService(client, store, batches) as service:
            yield service
