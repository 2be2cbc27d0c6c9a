"""The answers to the dialects' example bodies, rendered by the dialects themselves.

The scores are those of the lexical engine. Tests send each example to a running service and compare the answers.
"""

from collections.abc import Mapping
from typing import Any

from api.dialects import examples
from api.dialects.base import Dialect
from api.dialects.request_fields import JsonObject
from api.jobs.ranking import rank
from api.openapi.batch_schemas import EXAMPLE_BATCH_ID, EXAMPLE_FILE_ID
from api.openapi.schemas import EXAMPLE_CREATED, EXAMPLE_JOB_ID, EXAMPLE_MODEL
from api.openapi.webhook_schemas import EXAMPLE_ENDPOINT_ID
from shared.contracts import RerankRequest, RerankResult, ScoreScale, ShardScores, WorkClass
from shared.errors import (
    BatchNotFound,
    Forbidden,
    IdempotencyConflict,
    InternalError,
    InvalidRequest,
    JobCanceled,
    JobExpired,
    JobNotFinished,
    JobNotFound,
    ModelNotFound,
    ModelUnavailable,
    Overloaded,
    PayloadsFull,
    PayloadsUnavailable,
    PayloadTooLarge,
    RateLimited,
    RequestTimedOut,
    RerankqError,
    ScoringFailed,
    StoreDamaged,
    StoredFileInUse,
    StoredFileNotFound,
    StoreUnavailable,
    TextTooLong,
    TooManyDocuments,
    Unauthorized,
    WaitTimedOut,
    WebhookNotFound,
)
from shared.ledger.job_record import JobRecord, JobStatus
from shared.models import ModelRegistry, ModelSpec

PANDA_QUERY, PANDA_DOCUMENTS = examples.QUERY, examples.DOCUMENTS
REQUEST_ID = "8c1f0e2d3b4a5968"
_SERVED = ModelRegistry([ModelSpec(name=EXAMPLE_MODEL)])
_CREATED_MS = EXAMPLE_CREATED * 1000
_RECORD = JobRecord(
    id=EXAMPLE_JOB_ID,
    status=JobStatus.SUCCEEDED,
    model=EXAMPLE_MODEL,
    dialect="",
    owner="",
    work_class=WorkClass.INTERACTIVE,
    pairs=0,
    pairs_known=0,
    pairs_scored=0,
    shards=1,
    shards_left=0,
    created_ms=_CREATED_MS,
    started_ms=_CREATED_MS,
    finished_ms=_CREATED_MS,
    deadline_ms=0,
    failure=None,
)
_HI, _BEAR, _LONG = examples.DOCUMENTS
_SCORES: Mapping[tuple[str, str], tuple[float, int]] = {
    (examples.QUERY, _HI): (0.0, 5),
    (examples.QUERY, _BEAR): (0.5, 8),
    (examples.QUERY, _LONG): (0.69375, 24),
    (_BEAR, _LONG): (0.69375, 24),
}
"""The score of each pair, and its tokens."""

ERRORS: tuple[RerankqError, ...] = (
    InvalidRequest("top_n must be at least 1", param="top_n"),
    TooManyDocuments("documents: at most 10000 in one request, got 12000", param="documents"),
    TextTooLong(
        "documents[1]: 1203 tokens with the query and special tokens, but the limit is 512, and the request forbids "
        "truncation",
        param="documents[1]",
        tokens=1203,
        limit=512,
    ),
    Unauthorized("an API key is required: send `Authorization: Bearer KEY`, or `Api-Key: KEY`"),
    Forbidden("this API key lacks the scope 'rerank'"),
    ModelNotFound(f"model 'nope' is not served here; served: {EXAMPLE_MODEL}", param="model"),
    JobNotFound(f"there is no job {EXAMPLE_JOB_ID!r}", param="id"),
    JobCanceled(f"the job {EXAMPLE_JOB_ID} was canceled"),
    RequestTimedOut("no more body data arrived within 30 s"),
    PayloadTooLarge("the body is over the limit of 33554432 bytes"),
    IdempotencyConflict("this Idempotency-Key was used for another request", param="Idempotency-Key"),
    ScoringFailed("the worker failed on this job; its log says why"),
    InternalError(f"internal error; the server log has the details under request id {REQUEST_ID}"),
    ModelUnavailable(f"model {EXAMPLE_MODEL!r} failed to start: the weights are not there", param="model"),
    RateLimited("this API key has exceeded its limit: requests_per_second is 10", retry_after=1),
    Overloaded(
        f"model {EXAMPLE_MODEL!r} is overloaded: its queue is 4 s longer than this request may wait", retry_after=4
    ),
    StoreUnavailable("the job store cannot be reached; try again"),
    StoreDamaged("the job store has lost this request; send it again"),
    JobExpired(f"the job {EXAMPLE_JOB_ID} passed its deadline before it was scored"),
    WaitTimedOut(
        f"no result within 60 s; the job continues at /v1/jobs/{EXAMPLE_JOB_ID}", job_id=EXAMPLE_JOB_ID, retry_after=1
    ),
)
"""One of each error that a rerank request may return."""
_NO_FILE = StoredFileNotFound(f"there is no file {EXAMPLE_FILE_ID!r}", param="file_id")
_NO_ROOM = PayloadsFull("the payload store is full; delete files or try again later")
_NO_STORE = PayloadsUnavailable("the payload store cannot be used now; try again", retry_after=5)
BATCH_ERRORS: Mapping[str, tuple[RerankqError, ...]] = {
    "jobs": (_NO_ROOM, _NO_STORE),
    "files": (
        _NO_FILE,
        StoredFileInUse(f"the batch {EXAMPLE_BATCH_ID} reads this file; cancel it first", param="file_id"),
        _NO_ROOM,
        _NO_STORE,
    ),
    "batches": (BatchNotFound(f"there is no batch {EXAMPLE_BATCH_ID!r}", param="id"), _NO_FILE),
    "webhooks": (WebhookNotFound(f"there is no webhook {EXAMPLE_ENDPOINT_ID!r}", param="id"),),
}
"""The errors of routes under /v1/jobs, /v1/files, /v1/batches and /v1/webhooks."""
BAD_QUERY = InvalidRequest("limit must be a number from 1 to 100", param="limit")
NOT_FINISHED = JobNotFinished(f"the job {EXAMPLE_JOB_ID} is running; its result is not available yet")


def answer_to(dialect: Dialect, body: JsonObject) -> tuple[int, Any]:
    """Status and body of the answer to an example of a dialect."""
    spoken = dialect.dialect_for_body(body)
    try:
        return 200, spoken.render(_result(spoken.parse(body)))
    except (InvalidRequest, ModelNotFound) as error:
        return dialect.status_of(error), dialect.render_error(error, REQUEST_ID)


def _result(request: RerankRequest) -> RerankResult:
    served = request.model_copy(update={"model": _first_served(request)})
    pairs = [_SCORES[document.query or request.query, document.text] for document in request.documents]
    scores = ShardScores(
        scores=[score for score, _ in pairs],
        scale=ScoreScale.SIMILARITY,
        prompt_tokens=sum(tokens for _, tokens in pairs),
    )
    return rank(_RECORD, served, [scores])


def _first_served(request: RerankRequest) -> str | None:
    """The name under which the request finds a model. Raises ModelNotFound."""
    for name in (request.model, *request.fallbacks):
        try:
            _SERVED.resolve(name)
        except ModelNotFound:
            continue
        return name
    raise ModelNotFound(f"model {request.model!r} is not served here; served: {EXAMPLE_MODEL}", param="model")
