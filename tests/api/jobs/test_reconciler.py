import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

import api.jobs.reconciler
from api.background_tasks import cancel_and_wait
from api.jobs.reconciler import Reconciler
from infra.local.redis_server import start_redis
from shared.contracts import WorkClass
from shared.keys import pool_keys, queue_keys, service_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobStatus
from shared.ledger.worker_ledger import WorkerLedger
from shared.processes import stop_all
from shared.queue.celery_app import make_celery
from shared.queue.messages import MessageBuilder, WakeUp
from shared.store.client import connect_async
from tests.api.support import Worker
from tests.shared.support import (
    JOB,
    MODEL,
    StoreView,
    dead_redis_url,
    make_lease,
    make_submission,
    out_of_memory,
    read_message,
    read_record,
)

INTERACTIVE, BATCH = WorkClass.INTERACTIVE, WorkClass.BATCH
LEADER_SECONDS = 0.4
FOR_EVER = 1000.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds without a pause worth mentioning, and no grace where a test does not ask for it."""
    monkeypatch.setattr(api.jobs.reconciler, "ROUND_SECONDS", 0.02)
    monkeypatch.setattr(api.jobs.reconciler, "LEADER_SECONDS", LEADER_SECONDS)
    monkeypatch.setattr(api.jobs.reconciler, "GRACE_SECONDS", 0.0)


class CountingLedger(JobLedger):
    """Counts its rounds."""

    rounds = 0

    async def reconcile(self, model: str) -> list[WakeUp]:
        rings = await super().reconcile(model)
        self.rounds += 1
        return rings


class Server:
    """What Redis says of itself, instead of what it would say."""

    def __init__(self, client: Any) -> None:
        self.run_id = "first"
        self.uptime = FOR_EVER
        self.away = False
        client.info = self._info

    async def _info(self, _section: str) -> dict[str, Any]:
        if self.away:
            raise redis.ConnectionError("away")
        return {"run_id": self.run_id, "uptime_in_seconds": self.uptime}


@pytest.fixture
def counting(async_client: redis.asyncio.Redis) -> CountingLedger:
    return CountingLedger(async_client)


@pytest.fixture
def server(async_client: redis.asyncio.Redis) -> Server:
    return Server(async_client)


def make_reconciler(client: redis.asyncio.Redis, ledger: JobLedger, url: str = "redis://127.0.0.1") -> Reconciler:
    return Reconciler(client, ledger, MessageBuilder(make_celery(url)), [MODEL])


@asynccontextmanager
async def running(*reconcilers: Reconciler) -> AsyncIterator[list["asyncio.Task[None]"]]:
    tasks = [asyncio.create_task(reconciler.run()) for reconciler in reconcilers]
    try:
        yield tasks
        assert not any(task.done() for task in tasks if not task.cancelling())
    finally:
        await cancel_and_wait(tasks)


async def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        await asyncio.sleep(0.01)


class TestRounds:
    async def test_doorbells_that_nobody_heard_are_rung_again_in_their_own_queues(
        self, async_client: redis.asyncio.Redis, ledger: JobLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission("job-1", shards=2))
        await ledger.submit(make_submission("job-2", work_class=BATCH))
        store.drop_messages()
        store.make_due(0, 1, job_id="job-1")
        store.make_due(0, job_id="job-2")
        async with running(make_reconciler(async_client, ledger)):
            await until(lambda: bool(store.messages() and store.messages(BATCH)))
        assert [read_message(message) for message in store.messages()] == [("job-1", 0), ("job-1", 1)]
        assert [read_message(message) for message in store.messages(BATCH)] == [("job-2", 0)]

    async def test_a_shard_whose_worker_died_is_scored_by_another(
        self, async_client: redis.asyncio.Redis, ledger: JobLedger, redis_client: Any, redis_url: str, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        store.drop_messages()
        WorkerLedger(redis_client, MODEL, lease_seconds=0.05).claim(make_lease(token="the dead one's"))
        async with running(make_reconciler(async_client, ledger)):
            async with asyncio.timeout(10):
                await Worker(redis_url).answer_one()
        assert (await read_record(ledger)).status is JobStatus.SUCCEEDED
        assert store.shard()["crashes"] == "1"

    async def test_a_job_past_its_deadline_expires_though_nobody_looks_at_it(
        self, async_client: redis.asyncio.Redis, ledger: JobLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(deadline_seconds=0.05))
        async with running(make_reconciler(async_client, ledger)):
            await until(lambda: store.deadlines() == [])
        assert (await read_record(ledger)).status is JobStatus.EXPIRED

    async def test_every_model_is_looked_after(
        self, async_client: redis.asyncio.Redis, ledger: JobLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        store.drop_messages()
        store.make_due()
        reconciler = Reconciler(
            async_client, ledger, MessageBuilder(make_celery("redis://127.0.0.1")), ["other", MODEL]
        )
        async with running(reconciler):
            await until(lambda: bool(store.messages()))

    async def test_a_redis_that_is_away_is_no_reason_to_end(self) -> None:
        async with connect_async(dead_redis_url()) as client, running(make_reconciler(client, JobLedger(client))):
            await asyncio.sleep(0.3)

    async def test_a_full_redis_is_no_reason_to_leave_a_dead_workers_shard(
        self,
        async_client: redis.asyncio.Redis,
        ledger: JobLedger,
        redis_client: redis.Redis,
        store: StoreView,
    ) -> None:
        await ledger.submit(make_submission())
        async with running(make_reconciler(async_client, ledger)):
            await until(lambda: redis_client.exists(service_keys.RECONCILER_LEADER) == 1)
            WorkerLedger(redis_client, MODEL, lease_seconds=0.3).claim(make_lease())
            with out_of_memory(redis_client):
                await until(lambda: store.shard()["status"] == "queued", seconds=1)

    async def test_a_full_redis_is_no_reason_to_keep_a_job_past_its_deadline(
        self, async_client: redis.asyncio.Redis, ledger: JobLedger, redis_client: redis.Redis, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(deadline_seconds=0.3))
        async with running(make_reconciler(async_client, ledger)):
            await until(lambda: redis_client.exists(service_keys.RECONCILER_LEADER) == 1)
            with out_of_memory(redis_client):
                await until(lambda: store.deadlines() == [], seconds=1)

    async def test_keys_that_are_none_of_ours_are_no_reason_to_leave_anything(
        self, async_client: redis.asyncio.Redis, ledger: JobLedger, store: StoreView, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission())
        store.make_due()
        for key in (service_keys.RECONCILER_LEADER, queue_keys.queue(MODEL, INTERACTIVE), pool_keys.deadlines(MODEL)):
            redis_client.delete(key)
            redis_client.hset(key, "something", "else")
        async with running(make_reconciler(async_client, ledger)):
            await until(lambda: redis_client.type(queue_keys.queue(MODEL, INTERACTIVE)) == b"list")


class TestLeading:
    async def test_of_two_processes_one_works(self, async_client: redis.asyncio.Redis) -> None:
        ledgers = [CountingLedger(async_client), CountingLedger(async_client)]
        async with running(*(make_reconciler(async_client, ledger) for ledger in ledgers)):
            # Longer than a lock that is not renewed would last.
            started = time.monotonic()
            await until(lambda: sum(ledger.rounds for ledger in ledgers) >= 5)
            await asyncio.sleep(max(0.0, LEADER_SECONDS * 2 - (time.monotonic() - started)))
        assert min(ledger.rounds for ledger in ledgers) == 0

    async def test_another_one_takes_over_when_the_leader_dies(self, async_client: redis.asyncio.Redis) -> None:
        first, second = CountingLedger(async_client), CountingLedger(async_client)
        async with running(make_reconciler(async_client, first)) as tasks:
            await until(lambda: first.rounds > 0)
            async with running(make_reconciler(async_client, second)):
                tasks[0].cancel()
                died = time.monotonic()
                await until(lambda: second.rounds > 0, seconds=5)
                # Within the lock's time; the rest is for a busy machine.
                assert time.monotonic() - died < LEADER_SECONDS + 1

    async def test_who_has_lost_the_lead_does_nothing_until_it_is_free(
        self, async_client: redis.asyncio.Redis, counting: CountingLedger, redis_client: redis.Redis
    ) -> None:
        """As after a pause that was longer than the lock's time."""
        async with running(make_reconciler(async_client, counting)):
            await until(lambda: counting.rounds > 0)
            redis_client.set(service_keys.RECONCILER_LEADER, "somebody else", px=60_000)
            # A round may be on its way.
            await asyncio.sleep(0.1)
            rounds = counting.rounds
            await asyncio.sleep(0.2)
            assert counting.rounds == rounds
            assert redis_client.get(service_keys.RECONCILER_LEADER) == b"somebody else"
            redis_client.delete(service_keys.RECONCILER_LEADER)
            await until(lambda: counting.rounds > rounds)


class TestGrace:
    @pytest.fixture(autouse=True)
    def endless(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(api.jobs.reconciler, "GRACE_SECONDS", FOR_EVER)

    async def test_a_redis_that_was_there_all_the_time_needs_none(
        self, async_client: redis.asyncio.Redis, counting: CountingLedger, server: Server
    ) -> None:
        async with running(make_reconciler(async_client, counting)):
            await until(lambda: counting.rounds > 0)

    async def test_in_a_redis_that_has_just_started_no_lease_is_judged(
        self, async_client: redis.asyncio.Redis, counting: CountingLedger, server: Server
    ) -> None:
        server.uptime = 0.0
        async with running(make_reconciler(async_client, counting)):
            await asyncio.sleep(0.2)
        assert counting.rounds == 0

    async def restarted(self, server: Server) -> None:
        server.run_id = "second"

    async def away_for_a_moment(self, server: Server) -> None:
        server.away = True
        await asyncio.sleep(0.1)
        server.away = False

    @pytest.mark.parametrize("what_happens", [restarted, away_for_a_moment])
    async def test_after_redis_was_away_no_lease_is_judged(
        self,
        async_client: redis.asyncio.Redis,
        counting: CountingLedger,
        server: Server,
        what_happens: Callable[["TestGrace", Server], Awaitable[None]],
    ) -> None:
        async with running(make_reconciler(async_client, counting)):
            await until(lambda: counting.rounds > 0)
            await what_happens(self, server)
            # A round may be on its way.
            await asyncio.sleep(0.1)
            rounds = counting.rounds
            await asyncio.sleep(0.2)
            assert counting.rounds == rounds

    async def test_who_did_not_lead_then_gives_it_too(
        self, async_client: redis.asyncio.Redis, counting: CountingLedger, server: Server, redis_client: redis.Redis
    ) -> None:
        redis_client.set(service_keys.RECONCILER_LEADER, "the leader", px=60_000)
        async with running(make_reconciler(async_client, counting)):
            await asyncio.sleep(0.1)
            await self.restarted(server)
            await asyncio.sleep(0.1)
            redis_client.delete(service_keys.RECONCILER_LEADER)
            await asyncio.sleep(0.2)
        assert counting.rounds == 0

    async def test_deadlines_are_kept_meanwhile(
        self, async_client: redis.asyncio.Redis, ledger: JobLedger, server: Server, store: StoreView
    ) -> None:
        server.uptime = 0.0
        await ledger.submit(make_submission(deadline_seconds=0.05))
        async with running(make_reconciler(async_client, ledger)):
            await until(lambda: store.deadlines() == [])


async def test_after_a_real_restart_workers_get_their_time_to_renew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grace = 1.0
    child, url = start_redis(tmp_path, os.environ)
    try:
        with redis.Redis.from_url(url) as blocking:
            async with connect_async(url) as client:
                ledger, store = CountingLedger(client), StoreView(blocking)
                await ledger.submit(make_submission())
                WorkerLedger(blocking, MODEL).claim(make_lease())
                async with running(make_reconciler(client, ledger, url)):
                    await until(lambda: ledger.rounds > 0)
                    monkeypatch.setattr(api.jobs.reconciler, "GRACE_SECONDS", grace)
                    stop_all([child], grace_seconds=5)
                    back = time.monotonic()
                    child, _ = start_redis(tmp_path, os.environ, port=int(url.rpartition(":")[2].partition("/")[0]))
                    store.end_lease()
                    await until(lambda: store.shard()["status"] == "queued")
                    assert time.monotonic() - back >= grace
                    assert store.shard()["crashes"] == "1"
                    assert (await read_record(ledger, JOB)).status is JobStatus.RUNNING
    finally:
        stop_all([child], grace_seconds=5)
