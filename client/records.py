"""What is sent and what comes back, as plain records.

They keep what the service said (`raw`) beside what a caller mostly wants of it, and read no more than they need: a
newer service may say more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from client.errors import RerankError, UnexpectedAnswer

JsonObject = dict[str, Any]
Document = str | Mapping[str, Any]
FINAL_STATUSES = frozenset({"succeeded", "failed", "canceled", "expired"})


class Options(TypedDict, total=False):
    """The optional fields of a request; what each means is in docs/api.md."""

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
    priority: int


@dataclass(frozen=True, slots=True)
class Request:
    """One query and the documents to rank for it.

    Requests with the same `idempotency_key` are one job, as long as the service keeps it; `custom_id` is the caller's.
    """

    query: str
    documents: Sequence[Document]
    options: Options = field(default_factory=Options)
    idempotency_key: str | None = None
    custom_id: str | None = None

    def body(self) -> JsonObject:
        """What is sent."""
        return {"query": self.query, "documents": list(self.documents), **self.options}


@dataclass(frozen=True, slots=True)
class Row:
    """A document's place. `index` is its place in the request; `error` says why it could not be scored."""

    index: int
    score: float
    document: JsonObject | None = None
    truncated: bool = False
    error: str | None = None

    @property
    def text(self) -> str | None:
        """The document's text, where the service sent it back."""
        return None if self.document is None else self.document.get("text")


@dataclass(frozen=True, slots=True)
class Ranking:
    """The answer: rows, best first. `id` is the job's."""

    id: str
    model: str
    rows: list[Row]
    total_tokens: int
    raw: JsonObject = field(repr=False)

    @classmethod
    def read(cls, said: Any) -> "Ranking":
        """Raises UnexpectedAnswer."""
        try:
            rows = [_row(row) for row in said["results"]]
            return cls(said["id"], said["model"], rows, said["usage"]["total_tokens"], said)
        except (KeyError, TypeError) as error:
            raise UnexpectedAnswer(f"this is no ranking: {str(said)[:200]}") from error


def _row(said: Mapping[str, Any]) -> Row:
    return Row(
        index=said["index"],
        score=said["relevance_score"],
        document=said.get("document"),
        truncated=said.get("truncated", False),
        error=said.get("error"),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the request that was given as the `position`-th, from 0: a ranking or an error."""

    position: int
    request: Request
    ranking: Ranking | None = None
    error: RerankError | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A job's status and progress. Times are Unix seconds; `message` says why a failed job failed."""

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

    @property
    def final(self) -> bool:
        """Whether it stays as it is."""
        return self.status in FINAL_STATUSES

    @classmethod
    def read(cls, said: Any) -> "Job":
        """Raises UnexpectedAnswer."""
        try:
            progress = said["progress"]
            return cls(
                id=said["id"],
                status=said["status"],
                model=said["model"],
                pairs_total=progress["pairs_total"],
                pairs_done=progress["pairs_done"],
                shards_total=progress["shards_total"],
                shards_done=progress["shards_done"],
                pairs_per_second=progress.get("pairs_per_second"),
                estimated_finish=progress.get("estimated_finish"),
                created=said["created"],
                started=said.get("started"),
                finished=said.get("finished"),
                message=said.get("error", {}).get("message"),
                raw=said,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UnexpectedAnswer(f"this is no job: {str(said)[:200]}") from error


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is served, and how many workers take its work."""

    id: str
    aliases: list[str]
    workers: int
    raw: JsonObject = field(repr=False)

    @classmethod
    def read(cls, said: Any) -> "Model":
        """Raises UnexpectedAnswer."""
        try:
            return cls(said["id"], list(said["aliases"]), said["workers"]["ready"], said)
        except (KeyError, TypeError) as error:
            raise UnexpectedAnswer(f"this is no model: {str(said)[:200]}") from error
