"""Webhook deliveries for the tests of the outbox: jobs that have webhooks, and how they end."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import redis
import redis.asyncio

from shared.contracts import WorkClass
from shared.ledger.delivery_ledger import DeliveryLedger
from shared.ledger.delivery_record import DeliveryRecord
from shared.ledger.job_ledger import JobLedger
from shared.ledger.submission import Submission
from shared.ledger.worker_ledger import WorkerLedger
from shared.webhooks import WebhookEvent
from tests.shared.support import JOB, make_lease, make_scores, make_submission

ALL = list(WebhookEvent)
LEASE_SECONDS = 30.0


def receiver(endpoint: str = "we_1", lane: str = "a.example", **fields: Any) -> dict[str, Any]:
    """A receiver as the API names it at submission."""
    target = {"endpoint": endpoint, "url": f"https://{lane}/hook", "lane": lane, "form": "standard", "events": ALL}
    return target | fields


def with_webhooks(*receivers: dict[str, Any], job_id: str = JOB, shards: int = 1) -> Submission:
    return replace(make_submission(job_id, shards=shards), webhooks=json.dumps(receivers or [receiver()]))


@pytest.fixture
def deliveries(async_client: redis.asyncio.Redis) -> DeliveryLedger:
    return DeliveryLedger(async_client)


Claim = Callable[..., Awaitable[list[DeliveryRecord]]]


@pytest.fixture
def claim(deliveries: DeliveryLedger) -> Claim:
    async def claim(
        count: int = 10, per_lane: int = 10, busy: dict[str, int] | None = None, lease: float = LEASE_SECONDS
    ) -> list[DeliveryRecord]:
        return await deliveries.claim(count, per_lane=per_lane, busy=busy or {}, lease_seconds=lease)

    return claim


async def end(ledger: JobLedger, worker: WorkerLedger, submission: Submission) -> None:
    await ledger.submit(submission)
    worker.claim(make_lease(job_id=submission.job_id))
    worker.finish(make_lease(job_id=submission.job_id), make_scores(), WorkClass.INTERACTIVE)
