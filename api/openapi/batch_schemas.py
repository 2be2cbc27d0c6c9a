"""Schemas and examples of files, batches and jobs of many requests, for the OpenAPI document."""

from typing import Any, Literal

from pydantic import Field

from api.dialects import examples
from api.dialects.schemas import Omitted, RequestSchema, ResponseSchema, Webhook
from api.openapi.schemas import EXAMPLE_CREATED, EXAMPLE_MODEL, BulkProgress
from shared.ledger.batch_record import BatchStatus, Wake

EXAMPLE_FILE_ID = "file-0c9d1e5b7a3f48626b1d0e9f8a7c5b34"
EXAMPLE_BATCH_ID = "batch_7be3a1f09d2c4e5f8a6b1c0d9e8f7a6b"
EXAMPLE_BULK_JOB_ID = "bulk-2f8e6d4c0b1a49387f6e5d4c3b2a1908"


class StoredFile(ResponseSchema):
    """A file. Times are Unix seconds."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"]
    status_details: None


class StoredFiles(ResponseSchema):
    """A page of files. `after` of the next page is `last_id`."""

    object: Literal["list"]
    data: list[StoredFile]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFile(ResponseSchema):
    """A file that no longer exists."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


class BatchFailure(ResponseSchema):
    """Why a batch failed; `line` counts from 1."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchFailures(ResponseSchema):
    """All reasons for which a batch failed."""

    object: Literal["list"]
    data: list[BatchFailure]


class RequestCounts(ResponseSchema):
    """Requests whose rows are stored."""

    total: int
    completed: int
    failed: int


class Batch(ResponseSchema):
    """OpenAI's batch, with `progress`. Times are Unix seconds."""

    id: str
    object: Literal["batch"]
    endpoint: str
    errors: BatchFailures | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None
    progress: BulkProgress


class Batches(ResponseSchema):
    """A page of batches, newest first. `after` of the next page is `last_id`."""

    object: Literal["list"]
    data: list[Batch]
    first_id: str | None
    last_id: str | None
    has_more: bool


class NewBatch(RequestSchema):
    """A batch to create. A line of the input file is `{"custom_id", "url", "body"}`, or the body itself."""

    input_file_id: str
    endpoint: str = Field(description="The dialect of lines without a url: `/v1/rerank`, `/v1/score` ...")
    completion_window: str = Field("24h", description="From 1s to 30d. What is not done by then expires.")
    metadata: dict[str, str] | None = Field(None, description="At most 16 entries.")
    request_params: dict[str, Any] | None = Field(None, description="Fields of all requests, as in Voyage's API.")
    output_expires_after: dict[str, Any] | None = Field(None, description='`{"anchor": "created_at", "seconds"}`.')
    webhook: Webhook = None


class NewBulkJob(RequestSchema):
    """Many requests in one job. Each has the fields of `POST /v1/rerank`, and an optional `custom_id`."""

    requests: list[dict[str, Any]] = Field(min_length=1)
    model: str | None = None
    defaults: dict[str, Any] | None = Field(None, description="Fields of all requests.")
    deadline: str | float = Field("24h", description="Seconds, or a time like `30m` or `7d`.")
    wake: Wake = Field(Wake.NOW, description="`when_warm` waits for a worker that runs for other reasons.")
    metadata: dict[str, str] | None = Field(None, description="At most 16 entries.")
    webhook: Webhook = None


class RequestError(ResponseSchema):
    """Why one request has no result; `type` is stable."""

    type: str
    message: str
    param: str | None


class BulkResult(ResponseSchema):
    """One request's result, as a call would have returned it, or its error. `index` is its position in the job."""

    index: int
    custom_id: str | None
    result: dict[str, Any] | Omitted = None
    error: RequestError | Omitted = None


class BulkResults(ResponseSchema):
    """A page of results, in the order of the requests. `next` is `after` of the next page; null when there is none."""

    object: Literal["list"]
    data: list[BulkResult]
    has_more: bool
    next: int | None


EXAMPLE_FILE: dict[str, Any] = {
    "id": EXAMPLE_FILE_ID,
    "object": "file",
    "bytes": 120_000,
    "created_at": EXAMPLE_CREATED,
    "expires_at": EXAMPLE_CREATED + 604_800,
    "filename": "requests.jsonl",
    "purpose": "batch",
    "status": "processed",
    "status_details": None,
}
EXAMPLE_FILES = {
    "object": "list",
    "data": [EXAMPLE_FILE],
    "first_id": EXAMPLE_FILE_ID,
    "last_id": EXAMPLE_FILE_ID,
    "has_more": False,
}
_PROGRESS = {"requests_total": 200, "requests_done": 120, "pairs_total": 20_000, "pairs_done": 12_000}
EXAMPLE_BATCH: dict[str, Any] = {
    "id": EXAMPLE_BATCH_ID,
    "object": "batch",
    "endpoint": "/v1/rerank",
    "errors": None,
    "input_file_id": EXAMPLE_FILE_ID,
    "completion_window": "24h",
    "status": "in_progress",
    "output_file_id": None,
    "error_file_id": None,
    "created_at": EXAMPLE_CREATED,
    "in_progress_at": EXAMPLE_CREATED + 1,
    "expires_at": EXAMPLE_CREATED + 86_400,
    "finalizing_at": None,
    "completed_at": None,
    "failed_at": None,
    "expired_at": None,
    "cancelling_at": None,
    "cancelled_at": None,
    "request_counts": {"total": 200, "completed": 100, "failed": 0},
    "metadata": {"run": "nightly"},
    "progress": _PROGRESS | {"pairs_per_second": 412.7, "estimated_finish": EXAMPLE_CREATED + 49.4},
}
EXAMPLE_BATCHES = {
    "object": "list",
    "data": [EXAMPLE_BATCH],
    "first_id": EXAMPLE_BATCH_ID,
    "last_id": EXAMPLE_BATCH_ID,
    "has_more": False,
}
EXAMPLE_NEW_BATCH = {"input_file_id": EXAMPLE_FILE_ID, "endpoint": "/v1/rerank", "metadata": {"run": "nightly"}}
EXAMPLE_NEW_BULK_JOB = {
    "requests": [{"custom_id": "first", "query": examples.QUERY, "documents": examples.DOCUMENTS}],
    "defaults": {"top_n": 1},
    "deadline": "1h",
}
EXAMPLE_BULK_JOB: dict[str, Any] = {
    "id": EXAMPLE_BULK_JOB_ID,
    "object": "job",
    "status": "queued",
    "model": EXAMPLE_MODEL,
    "created": float(EXAMPLE_CREATED),
    "expires": EXAMPLE_CREATED + 3600.0,
    "wake": "now",
    "progress": {
        "requests_total": 0,
        "requests_done": 0,
        "pairs_total": 0,
        "pairs_done": 0,
        "requests_failed": 0,
    },
    "results": f"/v1/jobs/{EXAMPLE_BULK_JOB_ID}/results",
    "events": f"/v1/jobs/{EXAMPLE_BULK_JOB_ID}/events",
}


def request_doc(model: type[RequestSchema], example: dict[str, Any]) -> dict[str, Any]:
    """The `openapi_extra` of a route that parses its JSON body itself."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}}


UPLOAD_DOC: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["purpose", "file"],
                    "properties": {
                        "purpose": {"type": "string", "enum": ["batch"]},
                        "file": {"type": "string", "format": "binary", "description": "One JSON object a line."},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer", "minimum": 60, "maximum": 2_592_000},
                    },
                }
            }
        },
    }
}
