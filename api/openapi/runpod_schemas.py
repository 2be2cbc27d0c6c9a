"""Schemas and examples of RunPod's paths, for the OpenAPI document."""

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from api.dialects import examples
from api.dialects.schemas import Omitted, RequestSchema, ResponseSchema
from api.openapi.batch_schemas import request_doc
from api.openapi.schemas import EXAMPLE_JOB_ID, EXAMPLE_MODEL, response_doc

RunpodStatus = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]
_Milliseconds = Annotated[int, Field(ge=1)]
_Responses = dict[int | str, dict[str, Any]]


class RunpodPolicy(RequestSchema):
    """`ttl` counts from now: then the job is deleted. `executionTimeout` counts from its start."""

    executionTimeout: _Milliseconds | None = None
    ttl: _Milliseconds | None = None
    lowPriority: Annotated[bool | None, Field(description="The job starts no workers.")] = None


class RunpodCall(RequestSchema):
    """`input` is a body of the superset, of a worker of RunPod's, or a list of them."""

    input: dict[str, Any] | list[dict[str, Any]]
    webhook: Annotated[str | None, Field(description="A URL to which the job is posted when it has ended.")] = None
    policy: Annotated[RunpodPolicy | None, WithJsonSchema(RunpodPolicy.model_json_schema())] = None


class RunpodCreated(ResponseSchema):
    """A job that was queued."""

    id: str
    status: RunpodStatus


class RunpodJob(ResponseSchema):
    """A job. Times are milliseconds; `output` is that of the input's dialect."""

    id: str
    status: RunpodStatus
    delayTime: int | Omitted = None
    executionTime: int | Omitted = None
    output: Any | Omitted = None
    error: str | Omitted = None


class RunpodChunk(ResponseSchema):
    """The output of one input."""

    output: Any


class RunpodStream(ResponseSchema):
    """The outputs that were not streamed yet."""

    status: RunpodStatus
    stream: list[RunpodChunk]


class RunpodPurge(ResponseSchema):
    """How many jobs were cancelled."""

    removed: int
    status: Literal["completed"]


class RunpodCounts(ResponseSchema):
    """The requests of a batch. `total` is 0 until a finalized batch has been checked."""

    total: int
    completed: int
    failed: int


class RunpodBatch(ResponseSchema):
    """A batch. OPEN: it can be added to, and does not run. Its output is a list, in the order of its requests."""

    id: str
    status: Literal["OPEN"] | RunpodStatus
    delayTime: int | Omitted = None
    executionTime: int | Omitted = None
    output: list[Any] | Omitted = None
    error: str | Omitted = None
    requests: RunpodCounts


class RunpodRequests(RequestSchema):
    """Requests of a batch: inputs, or objects with an `input`. A list of them is accepted as well."""

    requests: list[dict[str, Any]]


class RunpodJobs(ResponseSchema):
    """The jobs of one model: so far, and now."""

    completed: int
    failed: int
    inProgress: int
    inQueue: int
    retried: int


class RunpodWorkers(ResponseSchema):
    """The workers of one model."""

    idle: int
    initializing: int
    ready: int
    running: int
    throttled: int


class RunpodHealth(ResponseSchema):
    """The jobs and workers of one model."""

    jobs: RunpodJobs
    workers: RunpodWorkers


_CREATED = {"id": EXAMPLE_JOB_ID, "status": "IN_QUEUE"}
_OUTPUT = {
    "model": EXAMPLE_MODEL,
    "results": [{"index": 0, "relevance_score": 0.0}, {"index": 1, "relevance_score": 0.5}],
    "usage": {"prompt_tokens": 13, "total_tokens": 13},
}
_DONE = {"id": EXAMPLE_JOB_ID, "status": "COMPLETED", "delayTime": 4, "executionTime": 17, "output": _OUTPUT}
_HEALTH = {
    "jobs": {"completed": 21, "failed": 1, "inProgress": 2, "inQueue": 5, "retried": 1},
    "workers": {"idle": 0, "initializing": 1, "ready": 2, "running": 2, "throttled": 0},
}
_INVALID = {"description": "A field is invalid; the message names it."}
_NO_MODEL = {"description": "No such model is served."}
_NO_JOB = {"description": "There is no such job, it belongs to another key, or its ttl has passed."}
_REFUSED: _Responses = {400: _INVALID, 404: _NO_MODEL, 413: {"description": "The body is over the limit."}}

RUN: _Responses = {200: response_doc(RunpodCreated, _CREATED, "The job."), **_REFUSED}
RUNSYNC: _Responses = {
    200: response_doc(RunpodJob, _DONE | {"id": "sync-5f1d8c0b6f3e4a7d9c2b1a0987654321"}, "The job."),
    **_REFUSED,
}
STATUS: _Responses = {200: response_doc(RunpodJob, _DONE, "The job."), 400: _INVALID, 404: _NO_JOB}
STREAM: _Responses = {
    200: response_doc(RunpodStream, {"status": "COMPLETED", "stream": [{"output": _OUTPUT}]}, "New outputs."),
    404: _NO_JOB,
}
CANCEL: _Responses = {
    200: response_doc(RunpodCreated, _CREATED | {"status": "CANCELLED"}, "The job as it is now."),
    404: _NO_JOB,
}
RETRY: _Responses = {
    200: response_doc(RunpodCreated, _CREATED, "The job."),
    400: {"description": "The job has neither failed nor timed out."},
    404: _NO_JOB,
}
PURGE: _Responses = {
    200: response_doc(RunpodPurge, {"removed": 5, "status": "completed"}, "How many jobs were cancelled."),
    404: _NO_MODEL,
}
HEALTH: _Responses = {200: response_doc(RunpodHealth, _HEALTH, "Jobs and workers."), 404: _NO_MODEL}
_OPEN = {
    "id": "bulk-5f1d8c0b6f3e4a7d9c2b1a0987654321",
    "status": "OPEN",
    "requests": {"total": 1, "completed": 0, "failed": 0},
}
NEW_BATCH: _Responses = {
    200: response_doc(RunpodBatch, _OPEN, "The batch."),
    **_REFUSED,
    429: {"description": "The key has too many open batches."},
}
BATCH: _Responses = {
    200: response_doc(RunpodBatch, _OPEN, "The batch."),
    400: {"description": "The batch, or a field, does not allow it; the message names the field."},
    404: {"description": "There is no such batch at this endpoint, or it belongs to another key."},
    429: {"description": "The unfinished batches of this key have too many tokens."},
}
FINALIZED: _Responses = BATCH | {
    200: response_doc(RunpodCreated, {"id": _OPEN["id"], "status": "IN_QUEUE"}, "The job of the batch.")
}
BATCH_BODY = request_doc(
    RunpodRequests, {"requests": [{"input": {"query": examples.QUERY, "docs": examples.DOCUMENTS}}]}
)
RUN_BODY = request_doc(
    RunpodCall,
    {"input": {"query": examples.QUERY, "docs": examples.DOCUMENTS}, "policy": {"executionTimeout": 60_000}},
)


def _parameter(name: str, description: str) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": 1}
    return {
        "parameters": [{"name": name, "in": "query", "required": False, "description": description, "schema": schema}]
    }


PARAMETERS = {
    "wait": _parameter("wait", "How long to wait, in milliseconds: 1000 to 300000. Default: 90000."),
    "ttl": _parameter("ttl", "For how many more milliseconds the job can be read, if that is shorter."),
}
