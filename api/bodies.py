"""The bodies of the routes that no dialect has a say in, as the OpenAPI document shows them, and an example of each."""

from typing import Any, Literal

from api.dialects.shapes import Absent, Answered
from shared.jobs import JobState

EXAMPLE_JOB_ID = "job-5f1d8c0b6f3e4a7d9c2b1a0987654321"
EXAMPLE_CREATED = 1_795_222_196
EXAMPLE_MODEL = "all-MiniLM-L6-v2"


class Progress(Answered):
    """How far a job is: (query, document) pairs, and the shards that they are cut into."""

    pairs: int
    shards: int
    shards_done: int


class JobError(Answered):
    """Why a job has no result; `type` is stable."""

    type: str
    message: str


class Job(Answered):
    """A job. Times are Unix seconds; `results` is where the result is, once it is there."""

    id: str
    object: Literal["job"]
    state: JobState
    model: str
    created: float
    progress: Progress
    results: str | Absent = None
    started: float | Absent = None
    finished: float | Absent = None
    error: JobError | Absent = None


class Workers(Answered):
    """A model's workers."""

    ready: int
    starting: int


class ServedModel(Answered):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["rerankq"]
    model_type: Literal["rerank"]
    aliases: list[str]
    workers: Workers


class ServedModels(Answered):
    """The models that are served, the default one first."""

    object: Literal["list"]
    data: list[ServedModel]


class Health(Answered):
    """The process answers."""

    status: Literal["ok"]


class Pool(Workers):
    """A model's workers, and why the last one failed to start where none is up."""

    failure: str | Absent = None


class Readiness(Answered):
    """Whether work can be done now."""

    status: Literal["ready", "not ready"]
    store: Literal["reachable", "unreachable"]
    models: dict[str, Pool]


class ClusterAuth(Answered):
    """Whether a key is required, to clients of Xinference."""

    auth: bool


EXAMPLE_MODEL_BODY: dict[str, Any] = {
    "id": EXAMPLE_MODEL,
    "object": "model",
    "created": 0,
    "owned_by": "rerankq",
    "model_type": "rerank",
    "aliases": ["sentence-transformers/all-MiniLM-L6-v2"],
    "workers": {"ready": 1, "starting": 0},
}
EXAMPLE_JOB: dict[str, Any] = {
    "id": EXAMPLE_JOB_ID,
    "object": "job",
    "state": "queued",
    "model": EXAMPLE_MODEL,
    "created": float(EXAMPLE_CREATED),
    "progress": {"pairs": 3, "shards": 1, "shards_done": 0},
}
EXAMPLE_JOB_DONE: dict[str, Any] = EXAMPLE_JOB | {
    "state": "succeeded",
    "progress": {"pairs": 3, "shards": 1, "shards_done": 1},
    "results": f"/v1/jobs/{EXAMPLE_JOB_ID}/results",
    "started": EXAMPLE_CREATED + 0.004,
    "finished": EXAMPLE_CREATED + 0.021,
}


def answering(model: type[Answered], example: Any, description: str) -> dict[str, Any]:
    """What a route's `responses` say of one status."""
    return {"model": model, "description": description, "content": {"application/json": {"example": example}}}
