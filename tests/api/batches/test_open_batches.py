"""Open batches become jobs of many requests: once, with their requests, and also after a failed attempt."""

import json

import pytest

from api.batches.open_batches import OpenBatches
from api.batches.service import BatchService
from api.dialects.registry import SUPERSET
from shared.errors import InvalidRequest, RateLimited
from shared.ledger.batch_record import BatchRecord, BatchStatus
from shared.ledger.open_batch_ledger import OpenBatch, OpenBatchLedger, OpenStatus
from shared.owner_limits import OwnerLimits, OwnerTerms
from tests.api.batches.support import REGISTRY, Bench
from tests.api.payloads.support import read
from tests.shared.support import MODEL, OWNER

REQUEST = {"url": "/superset/v1/rerank", "body": {"query": "q", "documents": ["one"]}}


@pytest.fixture
def batches(bench: Bench) -> OpenBatches:
    """A key may have one batch at a time."""
    service = BatchService(
        bench.batches,
        bench.files,
        bench.payloads,
        bench.names,
        REGISTRY,
        SUPERSET,
        terms_of=lambda _: OwnerTerms(1.0, OwnerLimits(batch_tokens=1)),
        on_created=lambda: None,
        retain_seconds=600,
    )
    return OpenBatches(OpenBatchLedger(bench.client, 10_000), service)


async def test_finalized_batch_is_a_job_of_its_requests_with_the_same_id(batches: OpenBatches, bench: Bench) -> None:
    batch = await batches.create(OWNER, MODEL, [REQUEST])
    await batches.add(batch.id, OWNER, MODEL, [REQUEST, REQUEST])
    job = await batches.finalize(batch.id, OWNER, MODEL)
    assert (job.id, job.status, job.model) == (batch.id, BatchStatus.VALIDATING, MODEL)
    lines = (await read(bench.payloads, job.input_name)).splitlines()
    assert [json.loads(line) for line in lines] == [REQUEST] * 3
    assert await batches.finalize(batch.id, OWNER, MODEL) == job
    assert await batches.read(batch.id, OWNER, MODEL) == job
    with pytest.raises(InvalidRequest, match="finalized"):
        await batches.add(batch.id, OWNER, MODEL, [REQUEST])


async def test_refused_finalization_can_be_repeated_and_loses_nothing(batches: OpenBatches, bench: Bench) -> None:
    first, second = [await batches.create(OWNER, MODEL, [REQUEST] * count) for count in (1, 2)]
    await batches.finalize(first.id, OWNER, MODEL)
    with pytest.raises(RateLimited):
        await batches.finalize(second.id, OWNER, MODEL)
    assert await batches.read(second.id, OWNER, MODEL) == OpenBatch(second.id, OpenStatus.FINALIZED, 2)
    await batches.cancel(first.id, OWNER, MODEL)
    await bench.batches.delete(await bench.read(first.id))
    job = await batches.finalize(second.id, OWNER, MODEL)
    assert len((await read(bench.payloads, job.input_name)).splitlines()) == 2


async def test_job_is_cancelled_like_the_batch_that_it_was(batches: OpenBatches) -> None:
    batch = await batches.create(OWNER, MODEL, [REQUEST])
    await batches.finalize(batch.id, OWNER, MODEL)
    cancelled = await batches.cancel(batch.id, OWNER, MODEL)
    assert isinstance(cancelled, BatchRecord)
    assert cancelled.status is BatchStatus.CANCELLING
