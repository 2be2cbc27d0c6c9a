"""Requests and responses as plain records.

Responses keep the full JSON (`raw`) beside the common fields. Unknown fields are ignored, because a newer service may
send more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from client.errors import RerankError, UnexpectedAnswer

JsonObject = dict[str, Any]
Document = str | Mapping[str, Any]
FINAL_STATUSES = frozenset({"succeeded", "failed", "canceled", "expired"})


class Options(TypedDict, total=False):
    """The optional fields of a request; docs/api.md describes them."""

    model: str
    top_n: int
    return_documents: bool
    raw_scores: bool
    rank_fields: Sequence[str]
    instruction: str
    max_tokens_per_query: int
    max_tokens_per_doc: int
    max_chunks_per_doc: int
    overlap_tokens: int
    truncate: Literal["END", "START", "NONE"]
    truncate_prompt_tokens: int
    priority: int
    webhook: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """One query and the documents to rank for it.

    Requests with the same `idempotency_key` share one job while the service keeps it. The caller can set `custom_id`
    to recognize the request in its Outcome; it is not sent.
    """

    query: str
    documents: Sequence[Document]
    options: Options = field(default_factory=Options)
    idempotency_key: str | None = None
    custom_id: str | None = None

    def body(self) -> JsonObject:
        """The JSON body."""
        return {"query": self.query, "documents": list(self.documents), **self.options}


@dataclass(frozen=True, slots=True)
class Row:
    """A ranked document. `index` is its position in the request; `error` tells why it could not be scored."""

    index: int
    score: float
    document: JsonObject | None = None
    truncated: bool = False
    error: str | None = None

    @property
    def text(self) -> str | None:
        """The document's text, if the service returned it."""
        return None if self.document is None else self.document.get("text")


@dataclass(frozen=True, slots=True)
class Ranking:
    """A ranking: rows sorted by score, best first. `id` is the job's id."""

    id: str
    model: str
    rows: list[Row]
    total_tokens: int
    raw: JsonObject = field(repr=False)

    @classmethod
    def read(cls, data: Any) -> "Ranking":
        """Raises UnexpectedAnswer."""
        try:
            rows = [_row(row) for row in data["results"]]
            return cls(data["id"], data["model"], rows, data["usage"]["total_tokens"], data)
        except (KeyError, TypeError) as error:
            raise UnexpectedAnswer(f"not a ranking: {str(data)[:200]}") from error


def _row(data: Mapping[str, Any]) -> Row:
    return Row(
        index=data["index"],
        score=data["relevance_score"],
        document=data.get("document"),
        truncated=data.get("truncated", False),
        error=data.get("error"),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one of many requests, a ranking or an error; `position` counts from 0."""

    position: int
    request: Request
    ranking: Ranking | None = None
    error: RerankError | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A job's status and progress. Times are Unix seconds; `message` says why a failed job failed.

    A job of many requests has no shards, and has `model` only when all requests share it.
    """

    id: str
    status: str
    model: str
    pairs_total: int
    pairs_done: int
    shards_total: int
    shards_done: int
    pairs_per_second: float | None
    estimated_finish: float | None
    created: float
    started: float | None
    finished: float | None
    message: str | None
    raw: JsonObject = field(repr=False)
    requests_total: int = 1
    requests_done: int = 0
    requests_failed: int = 0

    @property
    def final(self) -> bool:
        """Whether the status is final."""
        return self.status in FINAL_STATUSES

    @classmethod
    def read(cls, data: Any) -> "Job":
        """Raises UnexpectedAnswer."""
        try:
            progress = data["progress"]
            return cls(
                id=data["id"],
                status=data["status"],
                model=data.get("model", ""),
                pairs_total=progress["pairs_total"],
                pairs_done=progress["pairs_done"],
                shards_total=progress.get("shards_total", 0),
                shards_done=progress.get("shards_done", 0),
                pairs_per_second=progress.get("pairs_per_second"),
                estimated_finish=progress.get("estimated_finish"),
                created=data["created"],
                started=data.get("started"),
                finished=data.get("finished"),
                message=data.get("error", {}).get("message"),
                raw=data,
                requests_total=progress.get("requests_total", 1),
                requests_done=progress.get("requests_done", int(data["status"] == "succeeded")),
                requests_failed=progress.get("requests_failed", 0),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UnexpectedAnswer(f"not a job: {str(data)[:200]}") from error


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What became of one of many jobs: the job with its final status, or the error of waiting for it.

    A failed job raises nothing: `status` and `message` describe the failure. `position` counts from 0.
    """

    position: int
    job_id: str
    job: Job | None = None
    error: RerankError | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A served model, and how many workers are ready for it."""

    id: str
    aliases: list[str]
    workers: int
    raw: JsonObject = field(repr=False)

    @classmethod
    def read(cls, data: Any) -> "Model":
        """Raises UnexpectedAnswer."""
        try:
            return cls(data["id"], list(data["aliases"]), data["workers"]["ready"], data)
        except (KeyError, TypeError) as error:
            raise UnexpectedAnswer(f"not a model: {str(data)[:200]}") from error
