import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import pytest

import worker.dispatch.leases
from shared.errors import StoreUnavailable
from shared.keys import job_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.verdicts import RenewVerdict, ShardLease
from shared.ledger.worker_ledger import WorkerLedger
from shared.store.client import connect
from tests.shared.support import (
    JOB,
    MODEL,
    StoreView,
    dead_redis_url,
    make_lease,
    make_submission,
    out_of_memory,
    read_record,
)
from tests.worker.support import wait_until
from worker.dispatch.leases import LeaseKeeper


async def test_a_lease_is_renewed_until_the_shard_is_dropped(
    ledger: JobLedger, store: StoreView, redis_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.dispatch.leases, "RENEW_SECONDS", 0.05)
    short_ledger = WorkerLedger(redis_client, MODEL, lease_seconds=0.6)
    await ledger.submit(make_submission())
    short_ledger.claim(make_lease())
    leases = LeaseKeeper(short_ledger)
    leases.start()
    try:
        held = leases.hold(make_lease())
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            assert store.lease() == "token"
            store.make_due()
            assert await ledger.reconcile(MODEL) == []
            await asyncio.sleep(0.02)
        assert not held.cancellation.cancelled
        leases.drop(make_lease())
        # The lease is no longer renewed and expires.
        wait_until(lambda: store.lease() is None, seconds=5)
    finally:
        leases.stop()


async def test_a_shard_of_a_canceled_job_is_cancelled_within_a_second(
    ledger: JobLedger, enqueueing_worker: WorkerLedger, leases: LeaseKeeper
) -> None:
    for job_id in ("job-1", "job-2"):
        await ledger.submit(make_submission(job_id))
        enqueueing_worker.claim(make_lease(job_id=job_id))
    held, other = leases.hold(make_lease()), leases.hold(make_lease(job_id="job-2"))
    await ledger.cancel(await read_record(ledger))
    assert held.cancellation.wait(1.0)
    assert not held.released
    assert not other.cancellation.cancelled


async def test_a_shard_leased_by_another_worker_is_cancelled(
    ledger: JobLedger, enqueueing_worker: WorkerLedger, leases: LeaseKeeper, store: StoreView
) -> None:
    await ledger.submit(make_submission())
    enqueueing_worker.claim(make_lease(token="other-token"))
    assert leases.hold(make_lease()).cancellation.wait(5)
    assert store.lease() == "other-token"


async def test_a_shard_of_an_expired_job_is_cancelled(
    ledger: JobLedger, enqueueing_worker: WorkerLedger, leases: LeaseKeeper, store: StoreView
) -> None:
    await ledger.submit(make_submission())
    enqueueing_worker.claim(make_lease())
    held = leases.hold(make_lease())
    store.pass_deadline()
    assert held.cancellation.wait(5)


def test_release_all_cancels_all_held_shards_and_no_others(enqueueing_worker: WorkerLedger) -> None:
    leases = LeaseKeeper(enqueueing_worker)
    first, second, done = (leases.hold(make_lease(shard)) for shard in range(3))
    leases.drop(make_lease(2))
    assert leases.release_all() == 2
    assert [held.released for held in (first, second, done)] == [True, True, False]
    assert [held.cancellation.cancelled for held in (first, second, done)] == [True, True, False]
    for shard in range(2):
        leases.drop(make_lease(shard))
    assert leases.release_all() == 0


def test_dropping_an_unknown_lease_has_no_effect(enqueueing_worker: WorkerLedger) -> None:
    leases = LeaseKeeper(enqueueing_worker)
    leases.hold(make_lease(token="token"))
    leases.drop(make_lease(token="other-token"))
    assert leases.release_all() == 1


class CountingLedger(WorkerLedger):
    """Counts its renewals. Redis is unreachable while `unreachable` is set."""

    def __init__(self, client: Any) -> None:
        super().__init__(client, MODEL)
        self.renewals = 0
        self.unreachable = False

    def renew(self, leases: Sequence[ShardLease]) -> list[RenewVerdict]:
        self.renewals += 1
        if self.unreachable:
            raise StoreUnavailable("the job store cannot be reached")
        return super().renew(leases)


class TestOutages:
    async def test_scoring_continues_and_leases_are_renewed_after_the_outage(
        self,
        ledger: JobLedger,
        store: StoreView,
        redis_client: Any,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(worker.dispatch.leases, "RENEW_SECONDS", 0.01)
        counting = CountingLedger(redis_client)
        await ledger.submit(make_submission())
        counting.claim(make_lease())
        leases = LeaseKeeper(counting)
        counting.unreachable = True
        leases.start()
        try:
            with caplog.at_level(logging.WARNING):
                held = leases.hold(make_lease())
                wait_until(lambda: counting.renewals >= 10)
                assert not held.cancellation.cancelled
                assert len(caplog.records) == 1
                redis_client.pexpire(job_keys.lease(JOB, 0), 2000)
                counting.unreachable = False
                wait_until(lambda: store.remaining_seconds(job_keys.lease(JOB, 0)) > 2)
                assert not held.cancellation.cancelled
        finally:
            leases.stop()

    def test_an_unreachable_redis_cancels_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(worker.dispatch.leases, "RENEW_SECONDS", 0.01)
        with connect(dead_redis_url()) as client:
            leases = LeaseKeeper(WorkerLedger(client, MODEL))
            leases.start()
            try:
                assert not leases.hold(make_lease()).cancellation.wait(0.3)
            finally:
                leases.stop()

    async def test_leases_are_renewed_while_redis_is_out_of_memory(
        self,
        ledger: JobLedger,
        enqueueing_worker: WorkerLedger,
        leases: LeaseKeeper,
        store: StoreView,
        redis_client: Any,
    ) -> None:
        await ledger.submit(make_submission())
        enqueueing_worker.claim(make_lease())
        redis_client.pexpire(job_keys.lease(JOB, 0), 3000)
        leases.hold(make_lease())
        with out_of_memory(redis_client):
            wait_until(lambda: store.remaining_seconds(job_keys.lease(JOB, 0)) > 3)


def test_redis_is_not_called_without_leases(redis_client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.dispatch.leases, "RENEW_SECONDS", 0.01)
    counting = CountingLedger(redis_client)
    leases = LeaseKeeper(counting)
    leases.start()
    time.sleep(0.1)
    leases.stop()
    assert counting.renewals == 0
