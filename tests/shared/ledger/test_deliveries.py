"""The outbox of webhooks: deliveries are claimed, settled, listed, and sent again."""

from dataclasses import replace
from typing import Any

import pytest

from shared.keys import webhook_keys
from shared.ledger.delivery_ledger import DeliveryLedger
from shared.ledger.delivery_record import DeliveryRecord, DeliveryStatus
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import Position
from shared.ledger.worker_ledger import WorkerLedger
from tests.shared.ledger.deliveries import Claim, claim, deliveries, end, receiver, with_webhooks
from tests.shared.support import OWNER, StoreView

__all__ = ["claim", "deliveries"]


class TestClaims:
    async def test_a_claimed_delivery_is_due_again_after_its_lease(
        self, ledger: JobLedger, worker: WorkerLedger, claim: Claim
    ) -> None:
        await end(ledger, worker, with_webhooks())
        [first] = await claim(lease=0.0)
        [second] = await claim()
        assert await claim() == []
        assert (first.tries, second.tries) == (1, 2)
        assert first.id == second.id

    async def test_a_lane_has_a_limit_and_does_not_delay_others(
        self, ledger: JobLedger, worker: WorkerLedger, claim: Claim
    ) -> None:
        for number in range(3):
            await end(ledger, worker, with_webhooks(receiver(lane="slow.example"), job_id=f"job-slow-{number}"))
        await end(ledger, worker, with_webhooks(receiver(lane="fast.example"), job_id="job-fast"))
        lanes = [delivery.lane for delivery in await claim(per_lane=2)]
        assert sorted(lanes) == ["fast.example", "slow.example", "slow.example"]
        assert await claim(per_lane=2, busy={"slow.example": 2}) == []
        assert len(await claim(per_lane=2, busy={"slow.example": 1})) == 1

    async def test_full_lanes_at_the_front_hide_no_other_lane(
        self, ledger: JobLedger, worker: WorkerLedger, claim: Claim
    ) -> None:
        for number in range(5):
            await end(ledger, worker, with_webhooks(receiver(lane=f"lane-{number}"), job_id=f"job-{number}"))
        busy = {f"lane-{number}": 1 for number in range(4)}
        assert [delivery.lane for delivery in await claim(1, per_lane=1, busy=busy)] == ["lane-4"]

    async def test_a_delivery_whose_record_is_gone_is_forgotten(
        self, ledger: JobLedger, worker: WorkerLedger, claim: Claim, redis_client: Any, deliveries: DeliveryLedger
    ) -> None:
        await end(ledger, worker, with_webhooks())
        [found], _ = await deliveries.page(OWNER, "we_1", 10)
        redis_client.delete(webhook_keys.delivery(found.id))
        assert await claim() == []
        assert redis_client.zcard(webhook_keys.LANES) == 0

    async def test_one_process_leads(self, deliveries: DeliveryLedger) -> None:
        assert await deliveries.lead("one", 5.0)
        assert await deliveries.lead("one", 5.0)
        assert not await deliveries.lead("two", 5.0)


class TestSettling:
    @pytest.fixture
    async def claimed(self, ledger: JobLedger, worker: WorkerLedger, claim: Claim) -> DeliveryRecord:
        await end(ledger, worker, with_webhooks())
        [delivery] = await claim()
        return delivery

    async def status(self, deliveries: DeliveryLedger, delivery: DeliveryRecord) -> DeliveryRecord:
        record = await deliveries.read(delivery.id)
        assert record is not None
        return record

    async def test_a_delivered_one_is_kept_for_an_hour(
        self, deliveries: DeliveryLedger, claimed: DeliveryRecord, redis_client: Any, store: StoreView
    ) -> None:
        await deliveries.settle(claimed, DeliveryStatus.DELIVERED, http_status=204)
        record = await self.status(deliveries, claimed)
        assert (record.status, record.last_status, record.due_ms) == ("delivered", 204, 0)
        assert record.ended_ms >= record.created_ms
        assert 3500 < store.remaining_seconds(webhook_keys.delivery(claimed.id)) <= 3600
        assert redis_client.zcard(webhook_keys.pending(OWNER)) == redis_client.zcard(webhook_keys.LANES) == 0
        assert await deliveries.counts() == {"delivered": 1}

    async def test_a_foreign_value_in_the_counts_does_not_keep_it_from_ending(
        self, deliveries: DeliveryLedger, claimed: DeliveryRecord, redis_client: Any
    ) -> None:
        redis_client.set(webhook_keys.COUNTS, "foreign")
        await deliveries.settle(claimed, DeliveryStatus.DELIVERED)
        assert (await self.status(deliveries, claimed)).status is DeliveryStatus.DELIVERED

    async def test_one_that_is_retried_is_due_after_the_pause(
        self, deliveries: DeliveryLedger, claimed: DeliveryRecord, claim: Claim, store: StoreView
    ) -> None:
        await deliveries.settle(claimed, DeliveryStatus.PENDING, retry_seconds=60.0, http_status=500, error="e" * 999)
        record = await self.status(deliveries, claimed)
        assert record.status is DeliveryStatus.PENDING
        assert 59_000 < record.due_ms - store.now_ms() <= 60_000
        assert (record.last_status, len(record.last_error or "")) == (500, 300)
        assert await claim() == []

    async def test_a_late_failure_changes_nothing_and_a_late_success_counts(
        self, deliveries: DeliveryLedger, claimed: DeliveryRecord, redis_client: Any, claim: Claim
    ) -> None:
        redis_client.zadd(webhook_keys.lane(claimed.lane), {claimed.id: 0})
        redis_client.zadd(webhook_keys.LANES, {claimed.lane: 0})
        assert len(await claim()) == 1
        await deliveries.settle(claimed, DeliveryStatus.FAILED)
        assert (await self.status(deliveries, claimed)).status is DeliveryStatus.PENDING
        await deliveries.settle(claimed, DeliveryStatus.DELIVERED)
        await deliveries.settle(replace(claimed, tries=2), DeliveryStatus.FAILED)
        assert (await self.status(deliveries, claimed)).status is DeliveryStatus.DELIVERED

    async def test_the_first_body_is_kept(
        self, deliveries: DeliveryLedger, claimed: DeliveryRecord, redis_client: Any
    ) -> None:
        assert await deliveries.keep_body(claimed.id, b"one") == b"one"
        assert await deliveries.keep_body(claimed.id, b"two") == b"one"
        assert await deliveries.keep_body("msg_unknown", b"one") is None
        assert not redis_client.exists(webhook_keys.delivery("msg_unknown"))

    @pytest.mark.parametrize("status", DeliveryStatus)
    async def test_any_delivery_can_be_sent_again(
        self, deliveries: DeliveryLedger, claimed: DeliveryRecord, claim: Claim, status: DeliveryStatus
    ) -> None:
        await deliveries.keep_body(claimed.id, b"body")
        await deliveries.settle(claimed, status, retry_seconds=600.0)
        assert await deliveries.redeliver(claimed.id)
        [again] = await claim()
        assert (again.id, again.body, again.created_ms) == (claimed.id, b"body", claimed.created_ms)
        await deliveries.settle(again, DeliveryStatus.DELIVERED)
        assert (await self.status(deliveries, claimed)).status is DeliveryStatus.DELIVERED

    async def test_an_unknown_delivery_cannot_be_sent_again(self, deliveries: DeliveryLedger) -> None:
        assert not await deliveries.redeliver("msg_unknown")


async def test_pages_are_newest_first_and_can_be_filtered(
    ledger: JobLedger, worker: WorkerLedger, deliveries: DeliveryLedger, claim: Claim, store: StoreView
) -> None:
    for number in range(4):
        await end(ledger, worker, with_webhooks(job_id=f"job-{number}"))
        store.wait_for_next_millisecond()
    for delivery in await claim():
        if delivery.subject in ("job-1", "job-2"):
            await deliveries.settle(delivery, DeliveryStatus.FAILED)
    found, more = await deliveries.page(OWNER, "we_1", 2)
    assert ([record.subject for record in found], more) == (["job-3", "job-2"], True)
    found, more = await deliveries.page(OWNER, "we_1", 9, Position(found[-1].created_ms, found[-1].id))
    assert ([record.subject for record in found], more) == (["job-1", "job-0"], False)
    found, _ = await deliveries.page(OWNER, "we_1", 9, statuses=[DeliveryStatus.FAILED])
    assert [record.subject for record in found] == ["job-2", "job-1"]
    assert await deliveries.page("another owner", "we_1", 9) == ([], False)
