"""Schemas and examples of the bodies that do not depend on a dialect, for the OpenAPI document."""

from typing import Any, Literal

from api.dialects.schemas import Omitted, ResponseSchema
from shared.ledger.batch_record import Wake
from shared.ledger.job_record import JobStatus

EXAMPLE_JOB_ID = "job-5f1d8c0b6f3e4a7d9c2b1a0987654321"
EXAMPLE_CREATED = 1_795_222_196
EXAMPLE_MODEL = "all-MiniLM-L6-v2"


class Progress(ResponseSchema):
    """The progress of a job: (query, document) pairs, and the shards that they are divided into.

    `pairs_per_second` and `estimated_finish` (Unix seconds) are present once workers have scored a part of it.
    """

    pairs_total: int
    pairs_done: int
    shards_total: int
    shards_done: int
    pairs_per_second: float | Omitted = None
    estimated_finish: float | Omitted = None


class JobError(ResponseSchema):
    """Why a job has no result; `type` is stable."""

    type: str
    message: str


class Job(ResponseSchema):
    """A job. Times are Unix seconds; `events` is the path of its events, `results` that of its result, once it exists.

    Only operators see `key`.
    """

    id: str
    object: Literal["job"]
    status: JobStatus
    model: str
    created: float
    progress: Progress
    events: str
    results: str | Omitted = None
    started: float | Omitted = None
    finished: float | Omitted = None
    error: JobError | Omitted = None
    key: str | Omitted = None


class Workers(ResponseSchema):
    """A model's workers."""

    ready: int
    starting: int


class ServedModel(ResponseSchema):
    """A served model.

    `dtype` is the precision that its workers score in, such as float32 or bfloat16; null until a worker has loaded the
    model.
    """

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["rerankq"]
    model_type: Literal["rerank"]
    aliases: list[str]
    dtype: str | None
    workers: Workers


class ServedModels(ResponseSchema):
    """The served models, the default one first."""

    object: Literal["list"]
    data: list[ServedModel]


class ModelWorkers(Workers):
    """A model's workers, and why the last one failed to start when none runs."""

    draining: int
    failure: str | Omitted = None


class Load(ResponseSchema):
    """Work of one class."""

    jobs: int
    pairs: int
    tokens: int


class Loads(Load):
    """The total work, and that of each class."""

    interactive: Load
    batch: Load


class BulkProgress(ResponseSchema):
    """The requests and pairs that are done, failed ones included.

    `pairs_per_second` is the present rate, after the end the average; `estimated_finish` is in Unix seconds.
    """

    requests_total: int
    requests_done: int
    pairs_total: int
    pairs_done: int
    pairs_per_second: float | Omitted = None
    estimated_finish: float | Omitted = None
    requests_failed: int | Omitted = None


class BulkJob(ResponseSchema):
    """A job of many requests. Times are Unix seconds; `results` can be read while it runs; only operators see `key`."""

    id: str
    object: Literal["job"]
    status: JobStatus
    model: str | Omitted = None
    created: float
    expires: float
    wake: Wake
    progress: BulkProgress
    results: str
    events: str
    metadata: dict[str, str] | Omitted = None
    started: float | Omitted = None
    finished: float | Omitted = None
    error: JobError | Omitted = None
    key: str | Omitted = None


class Jobs(ResponseSchema):
    """A page of jobs, newest first. `next` is the value of `after` for the next page, null on the last one."""

    object: Literal["list"]
    data: list[Job | BulkJob]
    has_more: bool
    next: str | None


class DeadLetter(ResponseSchema):
    """A shard that exceeded its retry budget."""

    job: str
    shard: int
    model: str
    error: JobError
    crashes: int
    retries: int
    failed: float


class DeadLetters(ResponseSchema):
    """The newest dead letters, newest first."""

    object: Literal["list"]
    data: list[DeadLetter]


class PoolWorkers(ModelWorkers):
    """A pool's workers; `busy` ones hold work, whatever their state."""

    busy: int


class Pool(ResponseSchema):
    """The load of a model's pool, and how many workers it should have. Null means never measured."""

    id: str
    object: Literal["pool"]
    desired: int
    reason: str
    retry_at: float | None
    oldest_seconds: float
    idle_seconds: float | None
    shards: int
    backlog: Loads
    in_flight: Loads
    workers: PoolWorkers
    tokens_per_second: float | None
    start_seconds: float | None
    failures: int
    failure: str | None
    failed_at: float | None
    problem: str | None


class Pools(ResponseSchema):
    """Every model's pool."""

    object: Literal["list"]
    data: list[Pool]


class ClusterAuth(ResponseSchema):
    """Whether a key is required, for Xinference's clients."""

    auth: bool


EXAMPLE_MODEL_BODY: dict[str, Any] = {
    "id": EXAMPLE_MODEL,
    "object": "model",
    "created": 0,
    "owned_by": "rerankq",
    "model_type": "rerank",
    "aliases": ["sentence-transformers/all-MiniLM-L6-v2"],
    "dtype": "bfloat16",
    "workers": {"ready": 1, "starting": 0},
}
_NO_LOAD = {"jobs": 0, "pairs": 0, "tokens": 0}
_ONE_JOB = {"jobs": 1, "pairs": 3, "tokens": 57}
EXAMPLE_POOL: dict[str, Any] = {
    "id": EXAMPLE_MODEL,
    "object": "pool",
    "desired": 0,
    "reason": "the last start failed (the weights are not there): next try in 1 s",
    "retry_at": EXAMPLE_CREATED + 1.5,
    "oldest_seconds": 0.512,
    "idle_seconds": 0.512,
    "shards": 1,
    "backlog": _ONE_JOB | {"interactive": _ONE_JOB, "batch": _NO_LOAD},
    "in_flight": _NO_LOAD | {"interactive": _NO_LOAD, "batch": _NO_LOAD},
    "workers": {"starting": 0, "ready": 0, "draining": 0, "busy": 0},
    "tokens_per_second": 7480.5,
    "start_seconds": 6.4,
    "failures": 1,
    "failure": "the weights are not there",
    "failed_at": EXAMPLE_CREATED + 0.5,
    "problem": "no worker runs, since the last start failed: the weights are not there; it may be tried again",
}
EXAMPLE_JOB: dict[str, Any] = {
    "id": EXAMPLE_JOB_ID,
    "object": "job",
    "status": "queued",
    "model": EXAMPLE_MODEL,
    "created": float(EXAMPLE_CREATED),
    "progress": {"pairs_total": 3, "pairs_done": 0, "shards_total": 1, "shards_done": 0},
    "events": f"/v1/jobs/{EXAMPLE_JOB_ID}/events",
}
EXAMPLE_JOB_DONE: dict[str, Any] = EXAMPLE_JOB | {
    "status": "succeeded",
    "progress": {
        "pairs_total": 3,
        "pairs_done": 3,
        "shards_total": 1,
        "shards_done": 1,
        "pairs_per_second": 176.5,
    },
    "results": f"/v1/jobs/{EXAMPLE_JOB_ID}/results",
    "started": EXAMPLE_CREATED + 0.004,
    "finished": EXAMPLE_CREATED + 0.021,
}


EXAMPLE_JOBS: dict[str, Any] = {
    "object": "list",
    "data": [EXAMPLE_JOB_DONE],
    "has_more": True,
    "next": f"1795222196000-{EXAMPLE_JOB_ID}",
}
EXAMPLE_DEAD_LETTER: dict[str, Any] = {
    "job": EXAMPLE_JOB_ID,
    "shard": 0,
    "model": EXAMPLE_MODEL,
    "error": {"type": "scoring_failed", "message": "the worker died 4 times while it scored this job"},
    "crashes": 4,
    "retries": 0,
    "failed": EXAMPLE_CREATED + 21.5,
}


def response_doc(model: type[ResponseSchema], example: Any, description: str) -> dict[str, Any]:
    """The entry of one status in a route's `responses`."""
    return {"model": model, "description": description, "content": {"application/json": {"example": example}}}
