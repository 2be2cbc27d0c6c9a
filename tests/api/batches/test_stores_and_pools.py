"""How a run reacts to the payload store and to the pools: full and unreachable stores, load, and warmth."""

import asyncio
from typing import Any

import pytest

from api.payloads.base import PayloadStore
from shared.errors import PayloadsFull, PayloadsUnavailable
from shared.keys import pool_keys
from shared.ledger.batch_record import BatchKind, BatchStatus, Wake
from shared.pools.heartbeats import HeartbeatWriter, WorkerState
from tests.api.batches.support import Bench, LinesWithJobs, StubLines, good_line, lines_as_file, wait_until
from tests.api.payloads.support import objects
from tests.shared.ledger.batches import BATCH
from tests.shared.support import MODEL, OWNER

pytestmark = pytest.mark.usefixtures("fast")

TEN = lines_as_file([good_line(number) for number in range(1, 11)])


async def never(_: int) -> None:
    await asyncio.Event().wait()


class FailingStore:
    """A payload store that raises `error` after `writes` objects, until `repaired` is set."""

    def __init__(self, store: PayloadStore, error: Exception, writes: int) -> None:
        self._store = store
        self._error = error
        self._left = writes
        self.repaired = False
        self.failures = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, *args: Any, **options: Any) -> int:
        if self._left == 0 and not self.repaired:
            self.failures += 1
            raise self._error
        self._left -= 1
        return await self._store.write(*args, **options)


@pytest.mark.usefixtures("small_segments")
class TestPayloadStore:
    async def test_full_store_fails_the_batch_and_keeps_what_is_stored(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("api.batches.batch_writer.FULL_SECONDS", 0.1)
        submitted: list[str] = []

        async def note(job_id: str) -> None:
            submitted.append(job_id)
            if len(submitted) > 9:
                await never(0)

        store = FailingStore(bench.payloads, PayloadsFull("the payload store is full"), 2)
        await bench.create(TEN)
        record = await bench.run(LinesWithJobs(bench.jobs, note), payloads=store)
        assert (record.status, [error.code for error in record.errors]) == (BatchStatus.FAILED, ["payloads_full"])
        assert len(await bench.content(record.output_file)) == record.rows_ok == record.cursor_line > 0
        assert store.failures > 1
        # The batch has failed, so its jobs are deleted and no worker scores them.
        assert set((await bench.jobs.statuses(submitted[-1:])).values()) == {None}

    @pytest.mark.parametrize("error", [PayloadsFull("full"), PayloadsUnavailable("unreachable")])
    async def test_batch_continues_when_the_store_is_repaired(self, bench: Bench, error: Exception) -> None:
        store = FailingStore(bench.payloads, error, 1)
        await bench.create(TEN)
        task = await bench.start(StubLines(), payloads=store)
        await wait_until(lambda: store.failures >= 3)
        store.repaired = True
        async with asyncio.timeout(5):
            await task
        record = await bench.read()
        assert (record.status, len(await bench.content(record.output_file))) == (BatchStatus.COMPLETED, 10)
        assert len(await objects(bench.payloads)) == 1 + len(await bench.batches.segments(BATCH))


class TestUnpublishedLoad:
    async def load(self, bench: Bench) -> int:
        """The unpublished pairs of the batch."""
        text: Any = await bench.client.hget(pool_keys.unpublished(MODEL), BATCH)
        return int(text.split()[0]) if text else 0

    async def is_about(self, bench: Bench, pairs: int) -> bool:
        return abs(await self.load(bench) - pairs) <= 1

    async def test_load_shrinks_as_lines_become_jobs_and_is_removed_at_the_end(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("api.batches.window.MAX_LINES", 2)
        step = asyncio.Semaphore(0)
        await bench.create(TEN)
        task = await bench.start(StubLines(lambda _: step.acquire()))
        for expected in (16, 14, 12, 10):
            # Two of ten lines are jobs, then three, and so on: by their bytes, which differ a little.
            await wait_until(lambda expected=expected: self.is_about(bench, expected))  # type: ignore[misc]
            step.release()
        for _ in range(10):
            step.release()
        await task
        assert await self.load(bench) == 0

    async def test_cancelled_batch_has_no_unpublished_load(self, bench: Bench) -> None:
        await bench.create(TEN)
        await bench.batches.cancel(BATCH)
        await bench.run()
        assert await self.load(bench) == 0


class TestWhenWarm:
    async def test_batch_waits_for_a_worker_and_counts_for_none(self, bench: Bench, redis_client: Any) -> None:
        lines = StubLines()
        await bench.create(TEN, kind=BatchKind.JOB, wake=Wake.WHEN_WARM)
        task = await bench.start(lines)
        await wait_until(lambda: in_progress(bench))
        await asyncio.sleep(0.1)
        assert (lines.started, await bench.client.hgetall(pool_keys.unpublished(MODEL))) == ([], {})
        HeartbeatWriter(redis_client, MODEL, "w1").beat(WorkerState.READY)
        await bench.pools.refresh()
        async with asyncio.timeout(5):
            await task
        assert ((await bench.read()).status, len(lines.started)) == (BatchStatus.COMPLETED, 10)

    async def test_batch_that_waits_can_be_cancelled(self, bench: Bench) -> None:
        await bench.create(TEN, kind=BatchKind.JOB, wake=Wake.WHEN_WARM)
        task = await bench.start(StubLines())
        await wait_until(lambda: in_progress(bench))
        await bench.batches.cancel(BATCH)
        async with asyncio.timeout(5):
            await task
        record = await bench.read()
        assert (record.status, record.rows_failed, record.owner) == (BatchStatus.CANCELLED, 10, OWNER)


async def in_progress(bench: Bench) -> bool:
    return (await bench.read()).status is BatchStatus.IN_PROGRESS
