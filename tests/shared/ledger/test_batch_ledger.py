"""What the ledger promises to runners, readers and owners of batches. Every call may be repeated after a lost reply."""

from typing import Any

import pytest
import redis
import redis.asyncio

from shared.errors import StoreDamaged
from shared.keys import batch_keys, pool_keys
from shared.ledger.batch_ledger import LEASE_SECONDS, Advance, BatchLedger, BatchLost
from shared.ledger.batch_record import BatchKind, BatchRecord, BatchStatus
from shared.ledger.job_record import Position
from tests.shared.ledger.batches import BATCH, TOKEN, create, make_batch, make_segment, read
from tests.shared.support import MODEL, OWNER, StoreView


@pytest.fixture
def batches(async_client: redis.asyncio.Redis) -> BatchLedger:
    return BatchLedger(async_client, [MODEL, "other-model"])


@pytest.fixture
async def running(batches: BatchLedger) -> BatchRecord:
    """A batch that TOKEN holds."""
    record = await create(batches)
    assert await batches.acquire(BATCH, TOKEN)
    return record


def unpublished(client: Any, model: str = MODEL) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = client.hgetall(pool_keys.unpublished(model))
    return found


async def set_status(batches: BatchLedger, client: Any, status: BatchStatus) -> None:
    client.hset(batch_keys.batch(BATCH), "status", status)
    assert (await read(batches)).status is status


class TestLease:
    async def test_one_runner_holds_a_batch(self, batches: BatchLedger, running: BatchRecord) -> None:
        assert await batches.acquire(BATCH, TOKEN)
        assert not await batches.acquire(BATCH, "other")
        assert await batches.idle_batches() == 0

    async def test_write_renews_the_lease(self, batches: BatchLedger, running: BatchRecord, redis_client: Any) -> None:
        redis_client.pexpire(batch_keys.runner(BATCH), 500)
        await batches.write(BATCH, TOKEN)
        assert redis_client.pttl(batch_keys.runner(BATCH)) > 1000 * LEASE_SECONDS / 2

    async def test_released_batch_can_be_acquired(self, batches: BatchLedger, running: BatchRecord) -> None:
        await batches.release(BATCH, "other")
        assert not await batches.acquire(BATCH, "other")
        await batches.release(BATCH, TOKEN)
        for _ in range(100):
            if await batches.acquire(BATCH, "other"):
                return
        raise AssertionError("the lease is not released")

    async def test_batch_that_no_longer_exists_is_not_open(self, batches: BatchLedger, redis_client: Any) -> None:
        await create(batches)
        await batches.acquire(BATCH, TOKEN)
        await batches.write(BATCH, TOKEN, unpublished={MODEL: (1, 1)})
        redis_client.delete(batch_keys.batch(BATCH), batch_keys.runner(BATCH))
        assert await batches.idle_batches() == 1
        assert not await batches.acquire(BATCH, TOKEN)
        assert await batches.open_batches() == []
        assert unpublished(redis_client) == {}
        assert await batches.idle_batches() == 0

    async def test_seconds_left_are_those_of_the_clock_of_redis(self, batches: BatchLedger) -> None:
        record = await create(batches, seconds=100)
        assert await batches.seconds_left(record) == pytest.approx(100, abs=5)


class TestWriting:
    async def test_fields_and_status_are_written(self, batches: BatchLedger, running: BatchRecord) -> None:
        fields: dict[str, Any] = {"lines": 3, "pairs": 9, "loads": '{"m": [9, 90]}', "rate": "1.500"}
        assert await batches.write(BATCH, TOKEN, fields=fields, status=BatchStatus.IN_PROGRESS) == "in_progress"
        record = await read(batches)
        assert (record.status, record.lines, record.pairs, record.rate) == (BatchStatus.IN_PROGRESS, 3, 9, 1.5)
        assert {model: tuple(load) for model, load in record.loads.items()} == {"m": (9, 90)}
        assert record.in_progress_ms >= record.created_ms

    async def test_repeated_status_keeps_its_time(
        self, batches: BatchLedger, running: BatchRecord, store: StoreView
    ) -> None:
        await batches.write(BATCH, TOKEN, status=BatchStatus.IN_PROGRESS)
        first = await read(batches)
        store.wait_for_next_millisecond()
        await batches.write(BATCH, TOKEN, status=BatchStatus.IN_PROGRESS)
        assert await read(batches) == first

    async def test_status_of_a_batch_that_is_being_cancelled_stays(
        self, batches: BatchLedger, running: BatchRecord
    ) -> None:
        await batches.cancel(BATCH)
        written = await batches.write(BATCH, TOKEN, fields={"lines": 3}, status=BatchStatus.IN_PROGRESS)
        record = await read(batches)
        assert (written, record.status, record.lines) == (BatchStatus.CANCELLING, BatchStatus.CANCELLING, 3)
        assert record.in_progress_ms == 0

    async def test_segment_moves_the_cursor(self, batches: BatchLedger, running: BatchRecord) -> None:
        first, second = make_segment("a"), make_segment("b", 3)
        await batches.write(BATCH, TOKEN, fields={"cursor_line": 2}, advance=Advance(0, 40, first))
        await batches.write(BATCH, TOKEN, fields={"cursor_line": 5}, advance=Advance(40, 90, second))
        record = await read(batches)
        assert (record.cursor_byte, record.cursor_line) == (90, 5)
        assert await batches.segments(BATCH) == [first, second]
        assert await batches.segments(BATCH, 1) == [second]

    async def test_repeated_segment_is_appended_once(self, batches: BatchLedger, running: BatchRecord) -> None:
        for _ in range(2):
            await batches.write(BATCH, TOKEN, fields={"rows_ok": 2}, advance=Advance(0, 40, make_segment()))
        record = await read(batches)
        assert (record.cursor_byte, record.rows_ok) == (40, 2)
        assert await batches.segments(BATCH) == [make_segment()]

    async def test_cursor_can_move_without_a_segment(self, batches: BatchLedger, running: BatchRecord) -> None:
        await batches.write(BATCH, TOKEN, advance=Advance(0, 40, None))
        assert ((await read(batches)).cursor_byte, await batches.segments(BATCH)) == (40, [])

    @pytest.mark.parametrize("start", [0, 20, 60])
    async def test_segment_from_another_cursor_is_refused(
        self, batches: BatchLedger, running: BatchRecord, start: int
    ) -> None:
        await batches.write(BATCH, TOKEN, advance=Advance(0, 40, make_segment()))
        before = await read(batches)
        with pytest.raises(BatchLost):
            await batches.write(BATCH, TOKEN, fields={"rows_ok": 9}, advance=Advance(start, 80, make_segment("x")))
        assert await read(batches) == before
        assert await batches.segments(BATCH) == [make_segment()]

    async def test_runner_without_the_lease_writes_nothing(
        self, batches: BatchLedger, running: BatchRecord, redis_client: Any
    ) -> None:
        before = redis_client.hgetall(batch_keys.batch(BATCH)), redis_client.pttl(batch_keys.runner(BATCH))
        with pytest.raises(BatchLost):
            await batches.write(
                BATCH,
                "other",
                fields={"lines": 9},
                status=BatchStatus.FINALIZING,
                advance=Advance(0, 40, make_segment()),
                unpublished={MODEL: (1, 1)},
            )
        assert redis_client.hgetall(batch_keys.batch(BATCH)) == before[0]
        assert redis_client.pttl(batch_keys.runner(BATCH)) <= before[1]
        assert (await batches.segments(BATCH), unpublished(redis_client)) == ([], {})

    async def test_expired_lease_is_lost(self, batches: BatchLedger, running: BatchRecord, redis_client: Any) -> None:
        redis_client.delete(batch_keys.runner(BATCH))
        with pytest.raises(BatchLost):
            await batches.write(BATCH, TOKEN, fields={"lines": 9})

    @pytest.mark.parametrize("ending", ["delete", "end"])
    async def test_ended_and_deleted_batches_are_lost(
        self, batches: BatchLedger, running: BatchRecord, ending: str
    ) -> None:
        if ending == "end":
            await batches.end(running, TOKEN, BatchStatus.COMPLETED)
        else:
            await batches.delete(running)
        before = await batches.read(BATCH)
        with pytest.raises(BatchLost):
            await batches.write(BATCH, TOKEN, fields={"lines": 9}, unpublished={MODEL: (1, 1)})
        assert await batches.read(BATCH) == before

    async def test_unpublished_work_is_replaced_and_removed(
        self, batches: BatchLedger, running: BatchRecord, redis_client: Any
    ) -> None:
        await batches.write(BATCH, TOKEN, unpublished={MODEL: (10, 100), "other-model": (1, 5)})
        assert unpublished(redis_client) == {BATCH.encode(): b"10 100"}
        assert unpublished(redis_client, "other-model") == {BATCH.encode(): b"1 5"}
        await batches.write(BATCH, TOKEN)
        await batches.write(BATCH, TOKEN, unpublished={MODEL: (0, 0)})
        assert unpublished(redis_client) == {}
        assert unpublished(redis_client, "other-model") == {BATCH.encode(): b"1 5"}


class TestCancelling:
    @pytest.mark.parametrize("status", BatchStatus)
    async def test_only_work_that_is_not_complete_is_cancelled(
        self, batches: BatchLedger, running: BatchRecord, redis_client: Any, status: BatchStatus
    ) -> None:
        await set_status(batches, redis_client, status)
        can_be_cancelled = status in (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS)
        expected = BatchStatus.CANCELLING if can_be_cancelled else status
        assert [await batches.cancel(BATCH) for _ in range(2)] == [expected, expected]
        record = await read(batches)
        assert (record.status, bool(record.cancelling_ms)) == (expected, can_be_cancelled)

    async def test_unknown_batch_is_not_cancelled(self, batches: BatchLedger, redis_client: redis.Redis) -> None:
        assert await batches.cancel(BATCH) is None
        assert redis_client.keys() == []


class TestDeleting:
    async def test_nothing_of_a_deleted_batch_stays(
        self, batches: BatchLedger, running: BatchRecord, redis_client: redis.Redis
    ) -> None:
        await batches.write(BATCH, TOKEN, advance=Advance(0, 9, make_segment()), unpublished={MODEL: (1, 1)})
        assert await batches.delete(running)
        assert redis_client.keys() == []

    async def test_other_batches_stay(self, batches: BatchLedger, running: BatchRecord) -> None:
        other = await create(batches, make_batch("batch_2"))
        await batches.delete(running)
        assert await batches.page(BatchKind.BATCH, OWNER, 10) == ([other], False)
        assert await batches.open_batches() == ["batch_2"]


class TestLists:
    async def ids_of_pages(self, batches: BatchLedger, limit: int) -> list[str]:
        seen: list[str] = []
        position = None
        for _ in range(30):
            found, more = await batches.page(BatchKind.BATCH, OWNER, limit, position)
            assert len(found) == limit or not more
            seen += [record.id for record in found]
            if not more:
                return seen
            position = Position(found[-1].created_ms, found[-1].id)
        raise AssertionError("there are too many pages")

    @pytest.mark.parametrize("limit", [1, 2, 3, 11])
    async def test_pages_have_every_batch_once_with_equal_times_and_without_deleted_ones(
        self, batches: BatchLedger, redis_client: Any, limit: int
    ) -> None:
        for number in range(12):
            await create(batches, make_batch(f"batch_{number:02}"))
        times = {f"batch_{number:02}": 1000 + number // 5 for number in range(12)}
        redis_client.zadd(batch_keys.owned(BatchKind.BATCH, OWNER), times)
        for batch_id, created_ms in times.items():
            redis_client.hset(batch_keys.batch(batch_id), "created_ms", created_ms)
        for batch_id in ("batch_03", "batch_11"):
            redis_client.delete(batch_keys.batch(batch_id))
        expected = [f"batch_{number:02}" for number in range(11, -1, -1) if number not in (3, 11)]
        assert await self.ids_of_pages(batches, limit) == expected

    async def test_kinds_and_owners_have_lists_of_their_own(self, batches: BatchLedger) -> None:
        await create(batches, make_batch("batch_1"))
        await create(batches, make_batch("bulk-1", kind=BatchKind.JOB))
        await create(batches, make_batch("batch_2", owner="other"))
        found = [
            [record.id for record in (await batches.page(kind, owner, 10))[0]]
            for kind, owner in ((BatchKind.BATCH, OWNER), (BatchKind.JOB, OWNER), (BatchKind.BATCH, "other"))
        ]
        assert found == [["batch_1"], ["bulk-1"], ["batch_2"]]


class TestDamage:
    @pytest.mark.parametrize(("field", "value"), [("status", "dancing"), ("input_bytes", "many"), ("errors", "{")])
    async def test_damaged_record_is_reported(
        self, batches: BatchLedger, running: BatchRecord, redis_client: Any, field: str, value: str
    ) -> None:
        redis_client.hset(batch_keys.batch(BATCH), field, value)
        with pytest.raises(StoreDamaged):
            await batches.read(BATCH)

    @pytest.mark.parametrize("text", ["nonsense", "[]", "7"])
    async def test_damaged_segment_is_reported(self, batches: BatchLedger, redis_client: Any, text: str) -> None:
        redis_client.rpush(batch_keys.segments(BATCH), text)
        with pytest.raises(StoreDamaged):
            await batches.segments(BATCH)
