"""Files: their lifetimes, who may read them, and when they can be deleted."""

from collections.abc import AsyncIterator

import pytest

from shared.errors import StoredFileInUse, StoredFileNotFound
from shared.ledger.batch_ledger import Advance, ResultFile
from shared.ledger.batch_record import BatchStatus, FileRecord, FileSource, Segment
from tests.api.batches.support import Bench
from tests.api.payloads.support import objects, write
from tests.shared.ledger.batches import BATCH, TOKEN, create, make_batch
from tests.shared.support import OWNER

CONTENT = b'{"query": "q"}\n' * 3


async def upload(bench: Bench, file_id: str = "file-1", *, seconds: float | None = None) -> FileRecord:
    async def chunks() -> AsyncIterator[bytes]:
        yield CONTENT

    stored = await bench.files.store(file_id, chunks())
    return await bench.files.create(OWNER, file_id, "in.jsonl", "batch", stored, seconds)


async def content(bench: Bench, record: FileRecord) -> bytes:
    return b"".join([chunk async for chunk in bench.files.content(record)])


async def finished_batch(bench: Bench) -> None:
    """A batch with two segments, whose results are file-out and file-err."""
    record = await create(bench.batches)
    await bench.batches.acquire(BATCH, TOKEN)
    for start, (output, errors) in enumerate([(b"1\n2\n", b"bad 3\n"), (b"", b"bad 4\n"), (b"5\n", b"")]):
        name = f"space/{start}"
        await write(bench.payloads, name, output + errors)
        advance = Advance(start, start + 1, Segment(name, 2, len(output), len(errors)))
        await bench.batches.write(BATCH, TOKEN, advance=advance)
    out = ResultFile("file-out", "out.jsonl", 6, FileSource.OUTPUT)
    err = ResultFile("file-err", "err.jsonl", 12, FileSource.ERRORS)
    await bench.batches.end(record, TOKEN, BatchStatus.COMPLETED, output=out, errors_file=err)


async def test_upload_is_read_back(bench: Bench) -> None:
    record = await upload(bench)
    assert await bench.files.read("file-1", OWNER) == record
    assert (record.size, await content(bench, record)) == (len(CONTENT), CONTENT)


@pytest.mark.parametrize(("seconds", "lifetime"), [(None, 600_000), (60.0, 60_000)])
async def test_lifetime_is_the_callers_or_the_default(bench: Bench, seconds: float | None, lifetime: int) -> None:
    record = await upload(bench, seconds=seconds)
    assert record.expires_ms - record.created_ms == lifetime


async def test_upload_that_breaks_off_stores_nothing(bench: Bench) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(5 << 20)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await bench.files.store("file-1", chunks())
    assert await objects(bench.payloads) == {}


async def test_result_files_are_parts_of_the_segments(bench: Bench) -> None:
    await finished_batch(bench)
    assert await content(bench, await bench.files.read("file-out", OWNER)) == b"1\n2\n5\n"
    assert await content(bench, await bench.files.read("file-err", OWNER)) == b"bad 3\nbad 4\n"


async def test_file_of_another_owner_is_not_found(bench: Bench) -> None:
    await upload(bench)
    for call in (bench.files.read, bench.files.delete):
        with pytest.raises(StoredFileNotFound, match="there is no file 'file-1'"):
            await call("file-1", "other")
    with pytest.raises(StoredFileNotFound):
        await bench.files.page("other", 10, "file-1", None)
    assert await bench.files.page("other", 10, None, None) == ([], False)


async def test_deleted_file_is_gone(bench: Bench) -> None:
    record = await upload(bench)
    await bench.files.delete("file-1", OWNER)
    assert await objects(bench.payloads) == {}
    with pytest.raises(StoredFileNotFound):
        await bench.files.delete("file-1", OWNER)
    with pytest.raises(StoredFileNotFound, match="no longer exists"):
        await content(bench, record)


async def test_file_is_in_use_until_its_batches_have_ended(bench: Bench) -> None:
    await upload(bench)
    await create(bench.batches, make_batch("batch_other", input_file="file-2"))
    batch = await create(bench.batches, make_batch(input_file="file-1"))
    with pytest.raises(StoredFileInUse, match="the batch batch_1 reads this file; cancel it first"):
        await bench.files.delete("file-1", OWNER)
    await bench.batches.acquire(BATCH, TOKEN)
    await bench.batches.end(batch, TOKEN, BatchStatus.COMPLETED)
    await bench.files.delete("file-1", OWNER)


async def test_deleting_one_result_file_keeps_the_other(bench: Bench) -> None:
    await finished_batch(bench)
    await bench.files.delete("file-err", OWNER)
    assert await content(bench, await bench.files.read("file-out", OWNER)) == b"1\n2\n5\n"


async def test_pages_continue_behind_a_file(bench: Bench) -> None:
    for number in range(5):
        await upload(bench, f"file-{number}")
    first, more = await bench.files.page(OWNER, 3, None, None)
    assert more
    second, more = await bench.files.page(OWNER, 3, first[-1].id, None)
    assert not more
    assert {record.id for record in (*first, *second)} == {f"file-{number}" for number in range(5)}
