"""Batches that collect requests: their limits, and what closes them."""

import pytest
import redis.asyncio

from shared.errors import InvalidRequest, JobNotFound, PayloadTooLarge, RateLimited
from shared.keys import batch_keys
from shared.ledger import open_batch_ledger
from shared.ledger.open_batch_ledger import OpenBatch, OpenBatchLedger, OpenStatus
from tests.shared.support import MODEL, OWNER, StoreView

ID = "bulk-1"
OPEN = OpenStatus.OPEN


@pytest.fixture
def batches(async_client: redis.asyncio.Redis) -> OpenBatchLedger:
    return OpenBatchLedger(async_client, max_bytes=100)


async def test_requests_are_collected_in_order(batches: OpenBatchLedger) -> None:
    assert await batches.create(ID, OWNER, MODEL, [b"1"]) == OpenBatch(ID, OPEN, 1)
    assert await batches.add(ID, OWNER, MODEL, [b"2", b"3"]) == OpenBatch(ID, OPEN, 3)
    assert await batches.read(ID, OWNER, MODEL) == OpenBatch(ID, OPEN, 3)
    assert await batches.finalize(ID, OWNER, MODEL) == [b"1", b"2", b"3"]


async def test_finalized_batch_is_closed_and_keeps_its_requests_until_it_is_deleted(
    batches: OpenBatchLedger, store: StoreView
) -> None:
    await batches.create(ID, OWNER, MODEL, [b"1"])
    await batches.finalize(ID, OWNER, MODEL)
    with pytest.raises(InvalidRequest, match="is finalized"):
        await batches.add(ID, OWNER, MODEL, [b"2"])
    assert (await batches.cancel(ID, OWNER, MODEL)).status is OpenStatus.FINALIZED
    assert await batches.finalize(ID, OWNER, MODEL) == [b"1"]
    await batches.delete(ID, OWNER)
    with pytest.raises(JobNotFound):
        await batches.read(ID, OWNER, MODEL)
    assert not store._client.exists(batch_keys.owned_open_batches(OWNER))


async def test_canceled_batch_loses_its_requests(batches: OpenBatchLedger) -> None:
    await batches.create(ID, OWNER, MODEL, [b"1"])
    assert await batches.cancel(ID, OWNER, MODEL) == OpenBatch(ID, OpenStatus.CANCELED, 0)
    with pytest.raises(InvalidRequest, match="was cancelled"):
        await batches.finalize(ID, OWNER, MODEL)
    with pytest.raises(InvalidRequest, match="is canceled"):
        await batches.add(ID, OWNER, MODEL, [b"2"])


async def test_empty_batch_stays_open_when_it_is_finalized(batches: OpenBatchLedger) -> None:
    await batches.create(ID, OWNER, MODEL, [])
    with pytest.raises(InvalidRequest, match="no requests"):
        await batches.finalize(ID, OWNER, MODEL)
    assert await batches.add(ID, OWNER, MODEL, [b"1"]) == OpenBatch(ID, OPEN, 1)


@pytest.mark.parametrize(("owner", "model"), [("another", MODEL), (OWNER, "another")])
async def test_batch_of_another_key_or_model_does_not_exist(batches: OpenBatchLedger, owner: str, model: str) -> None:
    await batches.create(ID, OWNER, MODEL, [b"1"])
    for call in (batches.read, batches.finalize, batches.cancel):
        with pytest.raises(JobNotFound):
            await call(ID, owner, model)
    with pytest.raises(JobNotFound):
        await batches.add(ID, owner, model, [b"2"])
    assert await batches.read(ID, OWNER, MODEL) == OpenBatch(ID, OPEN, 1)


async def test_what_is_over_a_limit_is_refused_as_a_whole(
    batches: OpenBatchLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_batch_ledger, "MAX_REQUESTS", 3)
    await batches.create(ID, OWNER, MODEL, [b"1"])
    with pytest.raises(InvalidRequest, match="at most 3 requests"):
        await batches.add(ID, OWNER, MODEL, [b"2", b"3", b"4"])
    with pytest.raises(PayloadTooLarge, match="100 bytes"):
        await batches.add(ID, OWNER, MODEL, [b"2" * 100])
    assert await batches.finalize(ID, OWNER, MODEL) == [b"1"]


async def test_a_key_has_few_open_batches_at_once(batches: OpenBatchLedger) -> None:
    for number in range(open_batch_ledger.MAX_OPEN_BATCHES):
        await batches.create(f"bulk-{number}", OWNER, MODEL, [])
    with pytest.raises(RateLimited, match="finalize or cancel one"):
        await batches.create("bulk-x", OWNER, MODEL, [])
    await batches.create("bulk-x", "another", MODEL, [])
    await batches.cancel("bulk-0", OWNER, MODEL)
    await batches.create("bulk-y", OWNER, MODEL, [])


async def test_every_key_expires(batches: OpenBatchLedger, store: StoreView) -> None:
    await batches.create(ID, OWNER, MODEL, [b"1"])
    for key in store._client.scan_iter():
        assert 0 < store.remaining_seconds(key) <= open_batch_ledger.OPEN_SECONDS
