import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import Any

import pytest
import redis.asyncio

from api.background_tasks import cancel_and_wait
from api.batches.descriptions import describe_any_batch
from api.routes.jobs import describe
from api.webhooks.addresses import AddressRules
from api.webhooks.endpoints import Endpoints
from api.webhooks.event_bodies import EventBodies
from api.webhooks.retries import RetryPolicy
from api.webhooks.runner import DeliveryRunner, RunnerLimits
from api.webhooks.sender import WebhookSender
from api.webhooks.subscriptions import Subscriptions
from shared.contracts import WorkClass
from shared.ledger.batch_ledger import BatchLedger
from shared.ledger.delivery_ledger import DeliveryLedger
from shared.ledger.delivery_record import DEFAULT_ENDPOINT, DeliveryRecord
from shared.ledger.endpoint_ledger import EndpointLedger
from shared.ledger.job_ledger import JobLedger
from shared.ledger.worker_ledger import WorkerLedger
from shared.webhooks import WebhookForm, WebhookTarget
from tests.shared.conftest import worker
from tests.shared.support import MODEL, OWNER, make_lease, make_scores, make_submission

__all__ = ["worker"]

LOOPBACK = AddressRules((ip_network("127.0.0.0/8"),))
FAST_RETRIES = RetryPolicy(first=0.05, longest=0.1, give_up=20.0)
LIMITS = RunnerLimits(poll=0.02, leader=0.4, lease=2.0, retries=dict.fromkeys(WebhookForm, FAST_RETRIES))


@dataclass
class Outbox:
    """The parts of the outbox on a real Redis, and a runner of which several can be started."""

    client: redis.asyncio.Redis
    ledger: JobLedger
    worker: WorkerLedger
    limits: RunnerLimits = LIMITS
    runners: list["asyncio.Task[None]"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.endpoints = Endpoints(EndpointLedger(self.client))
        self.deliveries = DeliveryLedger(self.client)
        self.subscriptions = Subscriptions(self.endpoints, LOOPBACK)
        self.batches = BatchLedger(self.client, [MODEL])
        self.sender = WebhookSender(LOOPBACK)
        self.bodies = EventBodies(
            self.ledger,
            self.batches,
            describe_job=describe,
            describe_batch=lambda record: describe_any_batch(record, 0.0),
        )

    def start(self, **limits: Any) -> "asyncio.Task[None]":
        """Start a runner."""
        runner = DeliveryRunner(
            self.deliveries, self.endpoints, self.bodies, self.sender, replace(self.limits, **limits)
        )
        self.runners.append(asyncio.create_task(runner.run()))
        return self.runners[-1]

    async def end_job(self, target: WebhookTarget | None = None, job_id: str = "job-1", owner: str = OWNER) -> None:
        """Submit a job with the webhooks of its owner and `target`, and end it."""
        webhooks = await self.subscriptions.of_job(owner, target)
        await self.ledger.submit(replace(make_submission(job_id, owner=owner), webhooks=webhooks))
        self.worker.claim(make_lease(job_id=job_id))
        self.worker.finish(make_lease(job_id=job_id), make_scores(), WorkClass.INTERACTIVE)

    async def only_delivery(self, endpoint: str = DEFAULT_ENDPOINT) -> DeliveryRecord:
        [record], _ = await self.deliveries.page(OWNER, endpoint, 10)
        return record


@pytest.fixture
async def outbox(
    async_client: redis.asyncio.Redis, ledger: JobLedger, worker: WorkerLedger, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Outbox]:
    monkeypatch.setattr("api.background_tasks._CANCEL_AGAIN_SECONDS", 0.05)
    outbox = Outbox(async_client, ledger, worker)
    yield outbox
    await cancel_and_wait(outbox.runners)
    await outbox.sender.aclose()


async def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until the condition is true; it may be a coroutine function."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.01)
