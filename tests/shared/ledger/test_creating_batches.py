"""What the ledger promises to those who create batches: each is created once, and within its owner's budget."""

from typing import Any

import pytest
import redis.asyncio

from shared.errors import IdempotencyConflict, RateLimited
from shared.keys import batch_keys
from shared.ledger.batch_ledger import UNFINISHED_SECONDS, BatchLedger
from shared.ledger.batch_record import BatchKind, BatchStatus, Wake, new_batch_id
from shared.ledger.job_ledger import JobLedger
from shared.owner_limits import OwnerLimits
from tests.shared.ledger.batches import BATCH, TOKEN, create, make_batch
from tests.shared.support import MODEL, OWNER, StoreView, make_submission

LIMIT = OwnerLimits(batch_tokens=50)


@pytest.fixture
def batches(async_client: redis.asyncio.Redis) -> BatchLedger:
    return BatchLedger(async_client, [MODEL])


def reserved(client: Any, owner: str = OWNER) -> int:
    """What the owner's unfinished batches have reserved."""
    records = [
        client.hgetall(batch_keys.batch(batch.decode())) for batch in client.zrange(batch_keys.OPEN_BATCHES, 0, -1)
    ]
    return sum(int(record[b"reserved_tokens"]) for record in records if record[b"owner"] == owner.encode())


class TestCreating:
    async def test_new_batch_is_open_listed_and_reserves_its_tokens(
        self, batches: BatchLedger, redis_client: Any, store: StoreView
    ) -> None:
        record = await create(batches, seconds=3600)
        assert record.status is BatchStatus.VALIDATING
        assert record.expires_ms == record.created_ms + 3_600_000
        assert record.created_ms == pytest.approx(store.now_ms(), abs=5000)
        assert await batches.open_batches() == [BATCH]
        assert await batches.page(BatchKind.BATCH, OWNER, 10) == ([record], False)
        assert reserved(redis_client) == 25

    async def test_every_field_is_stored(self, batches: BatchLedger) -> None:
        asked = make_batch(
            kind=BatchKind.JOB,
            wake=Wake.WHEN_WARM,
            input_file="file-1",
            defaults={"model": "m", "nested": {"a": [1, None]}},
            metadata={"naïve": "값"},
        )
        record = await create(batches, asked)
        for name in ("kind", "owner", "endpoint", "window", "input_name", "input_bytes", "retain_seconds", "wake"):
            assert getattr(record, name) == getattr(asked, name)
        assert (record.input_file, record.defaults, record.metadata) == ("file-1", asked.defaults, asked.metadata)

    async def test_batch_of_an_empty_file_can_be_read(self, batches: BatchLedger) -> None:
        record = await create(batches, make_batch(input_bytes=0, reserved_tokens=0))
        assert (record.input_bytes, record.lines, record.errors) == (0, 0, ())

    async def test_repeated_call_changes_nothing(self, batches: BatchLedger, redis_client: Any) -> None:
        first = await create(batches)
        assert await create(batches) == first
        assert reserved(redis_client) == 25
        assert await batches.open_batches() == [BATCH]

    async def test_list_lives_as_long_as_the_results(self, batches: BatchLedger, store: StoreView) -> None:
        await create(batches, make_batch(retain_seconds=30 * 86_400))
        expected = UNFINISHED_SECONDS + 30 * 86_400
        assert store.remaining_seconds(batch_keys.owned(BatchKind.BATCH, OWNER)) == pytest.approx(expected, abs=60)

    def test_ids_show_the_kind(self) -> None:
        assert new_batch_id(BatchKind.BATCH).startswith("batch_")
        assert new_batch_id(BatchKind.JOB).startswith("bulk-")


class TestBudget:
    async def test_batch_over_the_budget_is_refused(self, batches: BatchLedger, redis_client: Any) -> None:
        await create(batches, limits=LIMIT)
        await create(batches, make_batch("batch_2"), limits=LIMIT)
        with pytest.raises(RateLimited, match="batch_tokens is 50") as raised:
            await create(batches, make_batch("batch_3", reserved_tokens=1), limits=LIMIT)
        assert raised.value.retry_after
        assert reserved(redis_client) == 50
        assert await batches.read("batch_3") is None
        assert await batches.open_batches() == [BATCH, "batch_2"]

    async def test_single_batch_always_fits(self, batches: BatchLedger) -> None:
        await create(batches, make_batch(reserved_tokens=1000), limits=LIMIT)
        await create(batches, make_batch("batch_2", owner="other"), limits=LIMIT)

    async def test_ended_batch_returns_its_tokens_once(self, batches: BatchLedger, redis_client: Any) -> None:
        record = await create(batches)
        await create(batches, make_batch("batch_2"))
        await batches.acquire(BATCH, TOKEN)
        for _ in range(2):
            await batches.end(record, TOKEN, BatchStatus.COMPLETED)
        assert reserved(redis_client) == 25
        assert await batches.delete(record)
        assert reserved(redis_client) == 25

    async def test_deleted_batch_returns_its_tokens_once(self, batches: BatchLedger, redis_client: Any) -> None:
        record = await create(batches)
        await create(batches, make_batch("batch_2"))
        assert [await batches.delete(record) for _ in range(2)] == [True, False]
        assert reserved(redis_client) == 25

    async def test_budget_is_free_again_when_a_batch_ends_or_is_deleted(self, batches: BatchLedger) -> None:
        ended, deleted = await create(batches), await create(batches, make_batch("batch_2"))
        with pytest.raises(RateLimited):
            await create(batches, make_batch("batch_3"), limits=LIMIT)
        await batches.acquire(BATCH, TOKEN)
        await batches.end(ended, TOKEN, BatchStatus.COMPLETED)
        await create(batches, make_batch("batch_3"), limits=LIMIT)
        with pytest.raises(RateLimited):
            await create(batches, make_batch("batch_4"), limits=LIMIT)
        await batches.delete(deleted)
        await create(batches, make_batch("batch_4"), limits=LIMIT)

    async def test_damaged_batch_reserves_nothing(self, batches: BatchLedger, redis_client: Any) -> None:
        await create(batches)
        redis_client.delete(batch_keys.batch(BATCH))
        redis_client.set(batch_keys.batch(BATCH), "foreign")
        await create(batches, make_batch("batch_2", reserved_tokens=50), limits=LIMIT)


class TestIdempotency:
    async def test_same_request_returns_the_first_batch(self, batches: BatchLedger, redis_client: Any) -> None:
        first = await create(batches, idempotency=("key", "print"))
        assert await create(batches, make_batch("batch_2"), idempotency=("key", "print")) == first
        assert await batches.read("batch_2") is None
        assert reserved(redis_client) == 25

    async def test_existing_batch_is_found_although_the_budget_is_used_up(self, batches: BatchLedger) -> None:
        first = await create(batches, make_batch(reserved_tokens=50), limits=LIMIT, idempotency=("key", "print"))
        again = await create(batches, make_batch("batch_2"), limits=LIMIT, idempotency=("key", "print"))
        assert again == first

    async def test_other_request_is_a_conflict(self, batches: BatchLedger) -> None:
        await create(batches, idempotency=("key", "print"))
        with pytest.raises(IdempotencyConflict):
            await create(batches, make_batch("batch_2"), idempotency=("key", "other"))
        assert await batches.open_batches() == [BATCH]

    async def test_owners_do_not_share_keys(self, batches: BatchLedger) -> None:
        await create(batches, idempotency=("key", "print"))
        other = await create(batches, make_batch("batch_2", owner="other"), idempotency=("key", "other"))
        assert other.id == "batch_2"

    async def test_jobs_and_batches_do_not_share_keys(self, batches: BatchLedger, ledger: JobLedger) -> None:
        await ledger.submit(make_submission(idempotency="key"))
        assert (await create(batches, idempotency=("key", "print"))).id == BATCH

    async def test_deleted_batch_frees_its_key(self, batches: BatchLedger) -> None:
        await batches.delete(await create(batches, idempotency=("key", "print")))
        for _ in range(2):
            again = await create(batches, make_batch("batch_2"), idempotency=("key", "other"))
            assert again.id == "batch_2"
