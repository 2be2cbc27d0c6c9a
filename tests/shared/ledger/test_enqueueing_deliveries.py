"""The outbox of webhooks: every end of a job or a batch enqueues its deliveries."""

import json
from dataclasses import replace
from typing import Any

import pytest
import redis
import redis.asyncio

from shared.contracts import WorkClass
from shared.keys import job_keys, webhook_keys
from shared.ledger.batch_ledger import BatchLedger
from shared.ledger.batch_record import BatchStatus
from shared.ledger.delivery_ledger import DeliveryLedger
from shared.ledger.delivery_record import DeliveryStatus
from shared.ledger.job_ledger import JobLedger
from shared.ledger.worker_ledger import WorkerLedger
from shared.owner_limits import OwnerLimits
from shared.partial_results import split_known
from shared.webhooks import WebhookEvent
from tests.shared.ledger.batches import BATCH, TOKEN, make_batch, read
from tests.shared.ledger.deliveries import Claim, claim, deliveries, end, receiver, with_webhooks
from tests.shared.ledger.test_job_ledger import ENDS, End
from tests.shared.support import JOB, MODEL, OWNER, StoreView, make_lease, make_scores, make_submission, out_of_memory

__all__ = ["claim", "deliveries"]


class TestEnqueueing:
    @pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
    async def test_every_way_to_end_enqueues_one_delivery(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView, claim: Claim, end: End
    ) -> None:
        await ledger.submit(with_webhooks(shards=2))
        for shard in (0, 1):
            worker.claim(make_lease(shard))
        worker.finish(make_lease(0), make_scores(), WorkClass.INTERACTIVE)
        assert await claim() == []
        await end(ledger, worker, store)
        [delivery] = await claim()
        status = (await ledger.statuses([JOB]))[JOB]
        assert (delivery.subject, delivery.final_status, delivery.event) == (JOB, status, f"job.{status}")
        assert (delivery.owner, delivery.endpoint, delivery.url) == (OWNER, "we_1", "https://a.example/hook")

    async def test_a_job_that_needs_no_worker_enqueues_its_delivery_at_submission(
        self, ledger: JobLedger, claim: Claim
    ) -> None:
        submission = with_webhooks()
        texts = [document.text for document in submission.request.documents]
        await ledger.submit(replace(submission, sizes=[], messages=[], known_scores=split_known(texts, {})))
        assert [delivery.event for delivery in await claim()] == ["job.succeeded"]

    async def test_a_job_without_webhooks_writes_no_key(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any
    ) -> None:
        await end(ledger, worker, make_submission())
        assert redis_client.keys("rerankq:webhook*") == []
        assert not redis_client.hexists(job_keys.job(JOB), "webhooks")

    async def test_only_receivers_of_the_event_get_it(
        self, ledger: JobLedger, worker: WorkerLedger, claim: Claim
    ) -> None:
        events = [WebhookEvent.JOB_FAILED, WebhookEvent.BATCH_ENDED]
        await end(ledger, worker, with_webhooks(receiver("we_1", events=events), receiver("we_2"), receiver("we_3")))
        found = await claim()
        assert [delivery.endpoint for delivery in found] == ["we_2", "we_3"]
        assert len({delivery.id for delivery in found}) == 2

    async def test_a_deleted_job_is_reported_as_canceled(self, ledger: JobLedger, claim: Claim) -> None:
        await ledger.submit(with_webhooks())
        record = await ledger.read(JOB)
        assert record is not None
        await ledger.delete(record)
        assert [delivery.event for delivery in await claim()] == ["job.canceled"]

    async def test_damaged_webhooks_do_not_keep_a_job_from_ending(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any, claim: Claim
    ) -> None:
        await ledger.submit(with_webhooks())
        redis_client.hset(job_keys.job(JOB), "webhooks", "{")
        for key in (webhook_keys.LANES, webhook_keys.pending(OWNER)):
            redis_client.set(key, "foreign")
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), WorkClass.INTERACTIVE)
        assert (await ledger.statuses([JOB]))[JOB] == "succeeded"

    async def test_foreign_values_in_the_outbox_are_replaced(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any, claim: Claim
    ) -> None:
        for key in (webhook_keys.LANES, webhook_keys.pending(OWNER), webhook_keys.lane("a.example")):
            redis_client.set(key, "foreign")
        redis_client.set(webhook_keys.deliveries(OWNER, "we_1"), "foreign")
        await end(ledger, worker, with_webhooks())
        assert len(await claim()) == 1

    async def test_a_job_ends_and_is_delivered_when_redis_is_full(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any, claim: Claim, deliveries: DeliveryLedger
    ) -> None:
        await end(ledger, worker, with_webhooks(job_id="loads-the-scripts"))
        [other] = await claim()
        await deliveries.keep_body(other.id, b"{}")
        await deliveries.settle(other, DeliveryStatus.DELIVERED)
        await ledger.submit(with_webhooks())
        worker.claim(make_lease())
        with out_of_memory(redis_client):
            worker.finish(make_lease(), make_scores(), WorkClass.INTERACTIVE)
            [delivery] = await claim()
            assert await deliveries.keep_body(delivery.id, b"{}") == b"{}"
            await deliveries.settle(delivery, DeliveryStatus.DELIVERED)
        record = await deliveries.read(delivery.id)
        assert record is not None
        assert record.status is DeliveryStatus.DELIVERED

    async def test_the_oldest_pending_deliveries_of_an_owner_fail_over_the_limit(
        self,
        ledger: JobLedger,
        worker: WorkerLedger,
        redis_client: Any,
        deliveries: DeliveryLedger,
        store: StoreView,
    ) -> None:
        await end(ledger, worker, with_webhooks())
        redis_client.zadd(webhook_keys.pending(OWNER), {f"other-{number}": 9e15 for number in range(99_998)})
        for job_id, first in (("job-2", "pending"), ("job-3", "failed")):
            store.wait_for_next_millisecond()
            await end(ledger, worker, with_webhooks(job_id=job_id))
            found, _ = await deliveries.page(OWNER, "we_1", 10)
            assert (found[0].subject, found[0].status) == (job_id, "pending")
            assert (found[-1].subject, found[-1].status) == (JOB, first)
            assert len(found) == redis_client.zcard(webhook_keys.pending(OWNER)) - 99_998 + (first == "failed")
        assert "too many" in (found[-1].last_error or "")


class TestBatches:
    async def create(self, batches: BatchLedger) -> None:
        webhooks = json.dumps([receiver()])
        await batches.create(make_batch(), seconds=60.0, limits=OwnerLimits(), webhooks=webhooks)
        await batches.acquire(BATCH, TOKEN)

    async def test_an_ended_batch_is_reported_once(self, async_client: redis.asyncio.Redis, claim: Claim) -> None:
        batches = BatchLedger(async_client, [MODEL])
        await self.create(batches)
        for _ in range(2):
            await batches.end(await read(batches), TOKEN, BatchStatus.COMPLETED)
        [delivery] = await claim()
        assert (delivery.event, delivery.subject, delivery.final_status) == ("batch.ended", BATCH, "completed")

    async def test_a_batch_deleted_before_its_end_is_reported_as_cancelled(
        self, async_client: redis.asyncio.Redis, claim: Claim
    ) -> None:
        batches = BatchLedger(async_client, [MODEL])
        await self.create(batches)
        await batches.delete(await read(batches))
        assert [delivery.final_status for delivery in await claim()] == ["cancelled"]

    async def test_a_batch_deleted_after_its_end_is_not_reported_again(
        self, async_client: redis.asyncio.Redis, claim: Claim
    ) -> None:
        batches = BatchLedger(async_client, [MODEL])
        await self.create(batches)
        await batches.end(await read(batches), TOKEN, BatchStatus.COMPLETED)
        await batches.delete(await read(batches))
        assert [delivery.final_status for delivery in await claim()] == ["completed"]
