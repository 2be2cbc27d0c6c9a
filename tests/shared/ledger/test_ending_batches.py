"""How a batch ends: its final status and the files of its results. Also when Redis is full."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.asyncio

from shared.errors import StoreUnavailable
from shared.keys import batch_keys, pool_keys
from shared.ledger.batch_ledger import Advance, BatchLedger, BatchLost, ResultFile
from shared.ledger.batch_record import BatchError, BatchKind, BatchRecord, BatchStatus, FileSource
from shared.ledger.file_ledger import FileLedger
from tests.shared.ledger.batches import BATCH, TOKEN, create, make_batch, make_segment, read
from tests.shared.support import MODEL, OWNER, StoreView, out_of_memory

OUTPUT = ResultFile("file-out", "batch_1_output.jsonl", 20, FileSource.OUTPUT)
ERRORS = ResultFile("file-err", "batch_1_errors.jsonl", 5, FileSource.ERRORS)


@pytest.fixture
def batches(async_client: redis.asyncio.Redis) -> BatchLedger:
    return BatchLedger(async_client, [MODEL, "other-model"])


@pytest.fixture
def files(async_client: redis.asyncio.Redis) -> FileLedger:
    return FileLedger(async_client)


@pytest.fixture
async def running(batches: BatchLedger) -> BatchRecord:
    """A batch that TOKEN holds, with a segment and unpublished work."""
    record = await create(batches)
    assert await batches.acquire(BATCH, TOKEN)
    await batches.write(BATCH, TOKEN, advance=Advance(0, 40, make_segment()), unpublished={MODEL: (1, 1)})
    return record


async def test_end_writes_everything(
    batches: BatchLedger, files: FileLedger, running: BatchRecord, redis_client: Any, store: StoreView
) -> None:
    await batches.end(running, TOKEN, BatchStatus.COMPLETED, output=OUTPUT, errors_file=ERRORS)
    record = await read(batches)
    assert (record.status, record.output_file, record.error_file) == ("completed", "file-out", "file-err")
    assert record.ended_ms == pytest.approx(store.now_ms(), abs=5000)
    assert await batches.open_batches() == []
    assert redis_client.hgetall(pool_keys.unpublished(MODEL)) == {}
    assert redis_client.get(batch_keys.runner(BATCH)) is None
    assert [found.id for found in (await files.page(OWNER, 10))[0]] == ["file-out", "file-err"]


async def test_result_files_live_as_long_as_the_caller_asked_and_the_batch_a_little_longer(
    batches: BatchLedger, files: FileLedger, running: BatchRecord, store: StoreView
) -> None:
    await batches.end(running, TOKEN, BatchStatus.COMPLETED, output=OUTPUT)
    file = await files.read("file-out")
    assert file is not None
    assert file.expires_ms - file.created_ms == 600_000
    assert (file.filename, file.size, file.purpose) == ("batch_1_output.jsonl", 20, "batch_output")
    assert (file.source, file.source_name, file.owner) == (FileSource.OUTPUT, BATCH, OWNER)
    assert store.remaining_seconds(batch_keys.file("file-out")) == pytest.approx(600, abs=5)
    for key in (batch_keys.batch(BATCH), batch_keys.segments(BATCH)):
        assert store.remaining_seconds(key) == pytest.approx(660, abs=5)


async def test_batch_without_rows_has_no_files(batches: BatchLedger, files: FileLedger, running: BatchRecord) -> None:
    error = BatchError("duplicate_custom_id", "the custom_id of line 2 is that of an earlier line", 2, "custom_id")
    await batches.end(running, TOKEN, BatchStatus.FAILED, errors=[error])
    record = await read(batches)
    assert (record.status, record.errors) == (BatchStatus.FAILED, (error,))
    assert (record.output_file, record.error_file, await files.page(OWNER, 10)) == (None, None, ([], False))


async def test_repeated_end_changes_nothing(
    batches: BatchLedger, files: FileLedger, running: BatchRecord, redis_client: redis.Redis
) -> None:
    await batches.end(running, TOKEN, BatchStatus.COMPLETED, output=OUTPUT)
    before = {key: redis_client.dump(key) for key in redis_client.scan_iter()}
    again = ResultFile("file-2", "x", 20, FileSource.OUTPUT)
    await batches.end(running, TOKEN, BatchStatus.FAILED, output=again)
    assert {key: redis_client.dump(key) for key in redis_client.scan_iter()} == before
    assert await files.read("file-2") is None


async def test_runner_without_the_lease_does_not_end_the_batch(
    batches: BatchLedger, files: FileLedger, running: BatchRecord
) -> None:
    before = await read(batches)
    with pytest.raises(BatchLost):
        await batches.end(running, "other", BatchStatus.COMPLETED, output=OUTPUT)
    assert await read(batches) == before
    assert await files.read("file-out") is None


async def test_deleted_batch_does_not_end(batches: BatchLedger, running: BatchRecord, redis_client: Any) -> None:
    await batches.delete(running)
    with pytest.raises(BatchLost):
        await batches.end(running, TOKEN, BatchStatus.COMPLETED, output=OUTPUT)
    assert redis_client.keys() == []


class TestFullMemory:
    @pytest.fixture
    def full(self, running: BatchRecord, redis_client: redis.Redis) -> Iterator[None]:
        """Redis is full until the test ends."""
        with out_of_memory(redis_client):
            yield

    async def test_new_batch_is_refused_as_a_whole(self, batches: BatchLedger, redis_client: redis.Redis) -> None:
        with out_of_memory(redis_client), pytest.raises(StoreUnavailable, match="out of memory"):
            await create(batches, idempotency=("key", "print"))
        assert redis_client.keys() == []

    @pytest.mark.usefixtures("full")
    async def test_results_are_stored_to_the_end(self, batches: BatchLedger, files: FileLedger) -> None:
        fields: dict[str, Any] = {"rows_ok": 4}
        advance = Advance(40, 90, make_segment("space/second"))
        await batches.write(BATCH, TOKEN, fields=fields, advance=advance, unpublished={MODEL: (9, 9)})
        await batches.write(BATCH, TOKEN, status=BatchStatus.FINALIZING)
        await batches.end(await read(batches), TOKEN, BatchStatus.COMPLETED, output=OUTPUT, errors_file=ERRORS)
        record = await read(batches)
        assert (record.status, record.rows_ok, record.cursor_byte) == (BatchStatus.COMPLETED, 4, 90)
        assert len(await batches.segments(BATCH)) == 2
        assert await files.read("file-err")

    @pytest.mark.usefixtures("full")
    async def test_batch_is_cancelled(self, batches: BatchLedger) -> None:
        assert await batches.cancel(BATCH) is BatchStatus.CANCELLING

    @pytest.mark.usefixtures("full")
    async def test_batch_is_deleted(self, batches: BatchLedger, redis_client: redis.Redis) -> None:
        assert await batches.delete(await read(batches))
        assert redis_client.keys() == []

    async def test_batch_is_acquired(self, batches: BatchLedger, redis_client: redis.Redis) -> None:
        await create(batches, make_batch(kind=BatchKind.JOB))
        with out_of_memory(redis_client):
            assert await batches.acquire(BATCH, TOKEN)
