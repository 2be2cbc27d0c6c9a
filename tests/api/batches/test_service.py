"""Creating batches and jobs of many requests: who may, what is stored, and what stays after a failure."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.batches.creation import read_batch, read_bulk_job
from api.batches.results import ResultReader, describe_row
from api.batches.service import BatchService
from api.dialects.registry import SUPERSET
from shared.errors import (
    BatchNotFound,
    IdempotencyConflict,
    InvalidRequest,
    JobNotFound,
    ModelNotFound,
    RateLimited,
    StoreDamaged,
    StoredFileNotFound,
    StoreUnavailable,
)
from shared.ledger.batch_ledger import Advance
from shared.ledger.batch_record import BatchKind, BatchStatus, FileRecord, Segment, Wake
from shared.owner_limits import OwnerLimits, OwnerTerms
from tests.api.batches.support import REGISTRY, Bench
from tests.api.payloads.support import objects, read, write
from tests.shared.ledger.batches import BATCH, TOKEN
from tests.shared.support import MODEL, OWNER, out_of_memory

REQUEST = {"query": "q", "documents": ["one"]}


class Service(BatchService):
    """A service that counts how often there was a batch to run."""

    created = 0


@pytest.fixture
def limits() -> OwnerLimits:
    return OwnerLimits()


@pytest.fixture
def service(bench: Bench, limits: OwnerLimits) -> Service:
    def note() -> None:
        made.created += 1

    made = Service(
        bench.batches,
        bench.files,
        bench.payloads,
        bench.names,
        REGISTRY,
        SUPERSET,
        terms_of=lambda _: OwnerTerms(1.0, limits),
        on_created=note,
        retain_seconds=600,
    )
    return made


@pytest.fixture
async def file(bench: Bench) -> FileRecord:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"{}\n" * 100

    stored = await bench.files.store("file-1", chunks())
    return await bench.files.create(OWNER, "file-1", "in.jsonl", "batch", stored, None)


def batch_body(**fields: Any) -> Any:
    return read_batch({"input_file_id": "file-1", "endpoint": "/v1/rerank", "completion_window": "24h"} | fields)


def bulk_body(*requests: dict[str, Any], **fields: Any) -> Any:
    return read_bulk_job({"requests": list(requests or (REQUEST, REQUEST))} | fields)


class TestBatches:
    async def test_batch_reads_the_file(self, service: Service, file: FileRecord) -> None:
        record = await service.create(batch_body(metadata={"a": "b"}), OWNER, None)
        assert (record.status, record.kind, record.endpoint) == (BatchStatus.VALIDATING, BatchKind.BATCH, "/v1/rerank")
        assert (record.input_name, record.input_file, record.input_bytes) == (file.source_name, file.id, 300)
        assert (record.expires_ms - record.created_ms, record.retain_seconds) == (86_400_000, 600)
        assert (record.reserved_tokens, record.metadata, service.created) == (76, {"a": "b"}, 1)

    async def test_endpoint_needs_no_slash(self, service: Service, file: FileRecord) -> None:
        assert (await service.create(batch_body(endpoint="v1/score"), OWNER, None)).endpoint == "/v1/score"

    async def test_results_live_as_long_as_the_caller_asks(self, service: Service, file: FileRecord) -> None:
        expiry = {"anchor": "created_at", "seconds": 3600}
        assert (await service.create(batch_body(output_expires_after=expiry), OWNER, None)).retain_seconds == 3600

    @pytest.mark.parametrize(
        ("fields", "error", "param"),
        [
            ({"input_file_id": "file-2"}, StoredFileNotFound, "file_id"),
            ({"endpoint": "/v1/chat/completions"}, InvalidRequest, "endpoint"),
            ({"request_params": {"model": "unknown"}}, ModelNotFound, "model"),
            ({"request_params": {"model": 7}}, InvalidRequest, "request_params"),
        ],
    )
    async def test_field_that_is_wrong_is_named(
        self, service: Service, file: FileRecord, bench: Bench, fields: Any, error: type[Exception], param: str
    ) -> None:
        with pytest.raises(error) as raised:
            await service.create(batch_body(**fields), OWNER, None)
        assert raised.value.param == param  # type: ignore[attr-defined]
        assert await bench.batches.open_batches() == []

    async def test_file_of_another_owner_is_not_found(self, service: Service, file: FileRecord) -> None:
        with pytest.raises(StoredFileNotFound):
            await service.create(batch_body(), "other", None)

    async def test_key_repeats_the_batch(self, service: Service, file: FileRecord) -> None:
        first = await service.create(batch_body(), OWNER, "key")
        assert await service.create(batch_body(), OWNER, "key") == first
        with pytest.raises(IdempotencyConflict):
            await service.create(batch_body(metadata={"a": "b"}), OWNER, "key")

    async def test_batches_of_another_owner_are_not_found(self, service: Service, file: FileRecord) -> None:
        record = await service.create(batch_body(), OWNER, None)
        for call in (service.read, service.cancel, service.delete):
            with pytest.raises(BatchNotFound, match=record.id):
                await call(record.id, "other", BatchKind.BATCH)
            with pytest.raises(JobNotFound):
                await call(record.id, OWNER, BatchKind.JOB)
        with pytest.raises(BatchNotFound):
            await service.page("other", BatchKind.BATCH, 10, record.id)
        assert (await service.read(record.id, OWNER, BatchKind.BATCH)).status is BatchStatus.VALIDATING


class TestJobsOfManyRequests:
    async def test_requests_are_stored_as_lines(self, service: Service, bench: Bench) -> None:
        body = bulk_body(REQUEST, {"custom_id": "ä\n"} | REQUEST, model=MODEL, defaults={"top_n": 1}, wake="when_warm")
        record = await service.create_bulk_job(body, OWNER, None)
        stored = await read(bench.payloads, record.input_name)
        assert [json.loads(line) for line in stored.split(b"\n")[:-1]] == body.requests
        assert (record.input_bytes, record.kind, record.wake) == (len(stored), BatchKind.JOB, Wake.WHEN_WARM)
        assert record.defaults == {"model": MODEL, "top_n": 1}

    async def test_repeated_custom_id_is_named(self, service: Service, bench: Bench) -> None:
        with pytest.raises(InvalidRequest, match=r"requests\[2\]\.custom_id is that of an earlier request") as raised:
            await service.create_bulk_job(bulk_body(*[{"custom_id": "a"}, {}, {"custom_id": "a"}]), OWNER, None)
        assert raised.value.param == "requests[2].custom_id"
        assert await objects(bench.payloads) == {}

    async def test_unknown_model_stores_nothing(self, service: Service, bench: Bench) -> None:
        with pytest.raises(ModelNotFound):
            await service.create_bulk_job(bulk_body(model="unknown"), OWNER, None)
        assert await objects(bench.payloads) == {}

    async def test_key_repeats_the_job_and_stores_its_input_once(self, service: Service, bench: Bench) -> None:
        first = await service.create_bulk_job(bulk_body(), OWNER, "key")
        assert await service.create_bulk_job(bulk_body(), OWNER, "key") == first
        with pytest.raises(IdempotencyConflict):
            await service.create_bulk_job(bulk_body(REQUEST), OWNER, "key")
        assert list(await objects(bench.payloads)) == [first.input_name]

    async def test_deleted_job_frees_its_key_and_its_space(self, service: Service, bench: Bench) -> None:
        first = await service.create_bulk_job(bulk_body(), OWNER, "key")
        await bench.batches.acquire(first.id, TOKEN)
        await write(bench.payloads, "space/segment", b"{}\n")
        await bench.batches.write(first.id, TOKEN, advance=Advance(0, 9, Segment("space/segment", 1, 3, 0)))
        await service.delete(first.id, OWNER, BatchKind.JOB)
        assert await objects(bench.payloads) == {}
        assert (await service.create_bulk_job(bulk_body(), OWNER, "key")).id != first.id

    async def test_full_redis_refuses_the_job_and_keeps_the_input_for_the_sweeper(
        self, service: Service, bench: Bench, redis_client: Any
    ) -> None:
        """The batch may exist after such an error: the reply was lost, not the batch."""
        await bench.names.namespace()
        with out_of_memory(redis_client), pytest.raises(StoreUnavailable):
            await service.create_bulk_job(bulk_body(), OWNER, "key")
        assert len(await objects(bench.payloads)) == 1
        assert (await service.create_bulk_job(bulk_body(), OWNER, "key")).kind is BatchKind.JOB

    class TestBudget:
        @pytest.fixture
        def limits(self) -> OwnerLimits:
            return OwnerLimits(batch_tokens=30)

        async def test_refused_job_stores_nothing(self, service: Service, bench: Bench) -> None:
            first = await service.create_bulk_job(bulk_body(), OWNER, None)
            with pytest.raises(RateLimited):
                await service.create_bulk_job(bulk_body(), OWNER, None)
            assert list(await objects(bench.payloads)) == [first.input_name]


class TestResults:
    @pytest.fixture
    async def reader(self, bench: Bench) -> ResultReader:
        """Of a batch with two segments: the rows 1 to 3, of which the second failed, and 4 to 5."""
        await bench.create(b"{}")
        await bench.batches.acquire(BATCH, TOKEN)
        for start, numbers in ((0, (1, 3, 2)), (10, (4, 5))):
            text = b"".join(json.dumps({"line": number}).encode() + b"\n" for number in numbers)
            await write(bench.payloads, f"space/{start}", text)
            segment = Segment(f"space/{start}", len(numbers), len(text), 0)
            await bench.batches.write(BATCH, TOKEN, advance=Advance(start, start + 10, segment))
        return ResultReader(bench.batches, bench.payloads)

    @pytest.mark.parametrize("after", range(7))
    @pytest.mark.parametrize("limit", [1, 2, 10])
    async def test_pages_are_in_the_order_of_the_input(self, reader: ResultReader, after: int, limit: int) -> None:
        found = [row["line"] for row in await reader.page(BATCH, after, limit)]
        assert found == [1, 2, 3, 4, 5][after:][:limit]

    async def test_missing_segment_is_reported(self, reader: ResultReader, bench: Bench) -> None:
        await bench.payloads.delete("space/10")
        assert [row["line"] for row in await reader.page(BATCH, 0, 3)] == [1, 2, 3]
        with pytest.raises(StoreDamaged):
            await reader.page(BATCH, 3, 1)

    def test_rows_of_both_kinds(self) -> None:
        row: dict[str, Any] = {"line": 3, "custom_id": "a", "error": None, "response": {"body": {"results": []}}}
        assert describe_row(row) == {"index": 2, "custom_id": "a", "result": {"results": []}}
        error = {"code": "batch_expired", "message": "too late", "param": None}
        described = describe_row(row | {"error": error, "response": None})
        assert described == {
            "index": 2,
            "custom_id": "a",
            "error": {"type": "batch_expired", "message": "too late", "param": None},
        }
