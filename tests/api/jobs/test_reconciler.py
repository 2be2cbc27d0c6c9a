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
LONG_SECONDS = 1000.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short rounds and no grace period."""
    monkeypatch.setattr(api.jobs.reconciler, "ROUND_SECONDS", 0.02)
    monkeypatch.setattr(api.jobs.reconciler, "LEADER_SECONDS", LEADER_SECONDS)
    monkeypatch.setattr(api.jobs.reconciler, "GRACE_SECONDS", 0.0)


class CountingLedger(JobLedger):
    """Counts the rounds of `reconcile`."""

    rounds = 0

    async def reconcile(self, model: str) -> list[WakeUp]:
        wake_ups = await super().reconcile(model)
        self.rounds += 1
        return wake_ups


class Server:
    """Replaces the output of Redis's INFO command."""

    def __init__(self, client: Any) -> None:
        self.run_id = "first"
        self.uptime = LONG_SECONDS
        self.unreachable = False
        client.info = self._info

    async def _info(self, _section: str) -> dict[str, Any]:
        if self.unreachable:
            raise redis.ConnectionError("unreachable")
        return {"run_id": self.run_id, "uptime_in_seconds": self.uptime}


@pytest.fixture
def counting_ledger(async_client: redis.asyncio.Redis) -> CountingLedger:
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


async def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        await asyncio.sleep(0.01)


class TestRounds:
    async def test_lost_messages_are_resent_to_their_own_queues(
        self, async_client: redis.asyncio.Redis, ledger: JobLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission("job-1", shards=2))
        await ledger.submit(make_submission("job-2", work_class=BATCH))
        store.drop_messages()
        store.make_due(0, 1, job_id="job-1")
        store.make_due(0, job_id="job-2")
        async with running(make_reconciler(async_client, ledger)):
            await wait_until(lambda: bool(store.messages() and store.messages(BATCH)))
        assert [read_message(message) for message in store.messages()] == [("job-1", 0), ("job-1", 1)]
        assert [read_message(message) for message in store.messages(BATCH)] == [("job-2", 0)]

    async def test_shard_of_a_dead_worker_is_scored_by_another(
        self, async_client: redis.asyncio.Redis, ledger: JobLedger, redis_client: Any, redis_url: str, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        store.drop_messages()
        WorkerLedger(redis_client, MODEL, lease_seconds=0.05).claim(make_lease(token="dead-worker"))
        async with running(make_reconciler(async_client, ledger)):
            async with asyncio.timeout(10):
                await Worker(redis_url).process_one()
        assert (await read_record(ledger)).status is JobStatus.SUCCEEDED
        assert store.shard()["crashes"] == "1"

    async def test_job_past_its_deadline_expires(
        self, async_client: redis.asyncio.Redis, ledger: JobLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(deadline_seconds=0.05))
        async with running(make_reconciler(async_client, ledger)):
            await wait_until(lambda: store.deadlines() == [])
        assert (await read_record(ledger)).status is JobStatus.EXPIRED

    async def test_every_model_is_reconciled(
        self, async_client: redis.asyncio.Redis, ledger: JobLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        store.drop_messages()
        store.make_due()
        reconciler = Reconciler(
            async_client, ledger, MessageBuilder(make_celery("redis://127.0.0.1")), ["other", MODEL]
        )
        async with running(reconciler):
            await wait_until(lambda: bool(store.messages()))

    async def test_unreachable_redis_does_not_stop_the_reconciler(self) -> None:
        async with connect_async(dead_redis_url()) as client, running(make_reconciler(client, JobLedger(client))):
            await asyncio.sleep(0.3)

    async def test_dead_workers_shard_is_requeued_when_redis_is_out_of_memory(
        self,
        async_client: redis.asyncio.Redis,
        ledger: JobLedger,
        redis_client: redis.Redis,
        store: StoreView,
    ) -> None:
        await ledger.submit(make_submission())
        async with running(make_reconciler(async_client, ledger)):
            await wait_until(lambda: redis_client.exists(service_keys.RECONCILER_LEADER) == 1)
            WorkerLedger(redis_client, MODEL, lease_seconds=0.3).claim(make_lease())
            with out_of_memory(redis_client):
                await wait_until(lambda: store.shard()["status"] == "queued", seconds=1)

    async def test_job_expires_when_redis_is_out_of_memory(
        self, async_client: redis.asyncio.Redis, ledger: JobLedger, redis_client: redis.Redis, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(deadline_seconds=0.3))
        async with running(make_reconciler(async_client, ledger)):
            await wait_until(lambda: redis_client.exists(service_keys.RECONCILER_LEADER) == 1)
            with out_of_memory(redis_client):
                await wait_until(lambda: store.deadlines() == [], seconds=1)

    async def test_keys_of_the_wrong_type_are_replaced(
        self, async_client: redis.asyncio.Redis, ledger: JobLedger, store: StoreView, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission())
        store.make_due()
        for key in (service_keys.RECONCILER_LEADER, queue_keys.queue(MODEL, INTERACTIVE), pool_keys.deadlines(MODEL)):
            redis_client.delete(key)
            redis_client.hset(key, "something", "else")
        async with running(make_reconciler(async_client, ledger)):
            await wait_until(lambda: redis_client.type(queue_keys.queue(MODEL, INTERACTIVE)) == b"list")


class TestLeading:
    async def test_only_one_process_leads(self, async_client: redis.asyncio.Redis) -> None:
        ledgers = [CountingLedger(async_client), CountingLedger(async_client)]
        async with running(*(make_reconciler(async_client, ledger) for ledger in ledgers)):
            # Longer than the lifetime of a lock that is not renewed.
            started = time.monotonic()
            await wait_until(lambda: sum(ledger.rounds for ledger in ledgers) >= 5)
            await asyncio.sleep(max(0.0, LEADER_SECONDS * 2 - (time.monotonic() - started)))
        assert min(ledger.rounds for ledger in ledgers) == 0

    async def test_another_process_takes_over_when_the_leader_dies(self, async_client: redis.asyncio.Redis) -> None:
        first, second = CountingLedger(async_client), CountingLedger(async_client)
        async with running(make_reconciler(async_client, first)) as tasks:
            await wait_until(lambda: first.rounds > 0)
            async with running(make_reconciler(async_client, second)):
                tasks[0].cancel()
                died = time.monotonic()
                await wait_until(lambda: second.rounds > 0, seconds=5)
                # The lifetime of the lock, and a margin for a busy machine.
                assert time.monotonic() - died < LEADER_SECONDS + 1

    async def test_former_leader_waits_until_the_lock_is_free(
        self, async_client: redis.asyncio.Redis, counting_ledger: CountingLedger, redis_client: redis.Redis
    ) -> None:
        """The process paused for longer than the lifetime of its lock."""
        async with running(make_reconciler(async_client, counting_ledger)):
            await wait_until(lambda: counting_ledger.rounds > 0)
            redis_client.set(service_keys.RECONCILER_LEADER, "another process", px=60_000)
            # A round may be in progress.
            await asyncio.sleep(0.1)
            rounds = counting_ledger.rounds
            await asyncio.sleep(0.2)
            assert counting_ledger.rounds == rounds
            assert redis_client.get(service_keys.RECONCILER_LEADER) == b"another process"
            redis_client.delete(service_keys.RECONCILER_LEADER)
            await wait_until(lambda: counting_ledger.rounds > rounds)


class TestGrace:
    @pytest.fixture(autouse=True)
    def long_grace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(api.jobs.reconciler, "GRACE_SECONDS", LONG_SECONDS)

    async def test_long_running_redis_needs_no_grace_period(
        self, async_client: redis.asyncio.Redis, counting_ledger: CountingLedger, server: Server
    ) -> None:
        async with running(make_reconciler(async_client, counting_ledger)):
            await wait_until(lambda: counting_ledger.rounds > 0)

    async def test_no_lease_expires_after_redis_started(
        self, async_client: redis.asyncio.Redis, counting_ledger: CountingLedger, server: Server
    ) -> None:
        server.uptime = 0.0
        async with running(make_reconciler(async_client, counting_ledger)):
            await asyncio.sleep(0.2)
        assert counting_ledger.rounds == 0

    async def restarted(self, server: Server) -> None:
        server.run_id = "second"

    async def unreachable_for_a_moment(self, server: Server) -> None:
        server.unreachable = True
        await asyncio.sleep(0.1)
        server.unreachable = False

    @pytest.mark.parametrize("interrupt", [restarted, unreachable_for_a_moment])
    async def test_no_lease_expires_after_an_interruption_of_redis(
        self,
        async_client: redis.asyncio.Redis,
        counting_ledger: CountingLedger,
        server: Server,
        interrupt: Callable[["TestGrace", Server], Awaitable[None]],
    ) -> None:
        async with running(make_reconciler(async_client, counting_ledger)):
            await wait_until(lambda: counting_ledger.rounds > 0)
            await interrupt(self, server)
            # A round may be in progress.
            await asyncio.sleep(0.1)
            rounds = counting_ledger.rounds
            await asyncio.sleep(0.2)
            assert counting_ledger.rounds == rounds

    async def test_new_leader_keeps_the_grace_period(
        self,
        async_client: redis.asyncio.Redis,
        counting_ledger: CountingLedger,
        server: Server,
        redis_client: redis.Redis,
    ) -> None:
        redis_client.set(service_keys.RECONCILER_LEADER, "the leader", px=60_000)
        async with running(make_reconciler(async_client, counting_ledger)):
            await asyncio.sleep(0.1)
            await self.restarted(server)
            await asyncio.sleep(0.1)
            redis_client.delete(service_keys.RECONCILER_LEADER)
            await asyncio.sleep(0.2)
        assert counting_ledger.rounds == 0

    async def test_jobs_expire_during_the_grace_period(
        self, async_client: redis.asyncio.Redis, ledger: JobLedger, server: Server, store: StoreView
    ) -> None:
        server.uptime = 0.0
        await ledger.submit(make_submission(deadline_seconds=0.05))
        async with running(make_reconciler(async_client, ledger)):
            await wait_until(lambda: store.deadlines() == [])


async def test_real_restart_starts_the_grace_period(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grace = 1.0
    child, url = start_redis(tmp_path, os.environ)
    try:
        with redis.Redis.from_url(url) as blocking:
            async with connect_async(url) as client:
                ledger, store = CountingLedger(client), StoreView(blocking)
                await ledger.submit(make_submission())
                WorkerLedger(blocking, MODEL).claim(make_lease())
                async with running(make_reconciler(client, ledger, url)):
                    await wait_until(lambda: ledger.rounds > 0)
                    monkeypatch.setattr(api.jobs.reconciler, "GRACE_SECONDS", grace)
                    stop_all([child], grace_seconds=5)
                    restarted = time.monotonic()
                    child, _ = start_redis(tmp_path, os.environ, port=int(url.rpartition(":")[2].partition("/")[0]))
                    store.end_lease()
                    await wait_until(lambda: store.shard()["status"] == "queued")
                    assert time.monotonic() - restarted >= grace
                    assert store.shard()["crashes"] == "1"
                    assert (await read_record(ledger, JOB)).status is JobStatus.RUNNING
    finally:
        stop_all([child], grace_seconds=5)
