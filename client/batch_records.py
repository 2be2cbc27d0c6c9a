"""Batches, stored files, and the results of single requests as plain records.

Unknown fields are ignored, as in client.records.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from client.errors import RerankError, UnexpectedAnswer, error_of_object
from client.records import JsonObject, Ranking

FINAL_STATUSES = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that the service keeps; `size` is in bytes."""

    id: str
    filename: str
    size: int
    raw: JsonObject = field(repr=False)

    @classmethod
    def read(cls, data: Any) -> "StoredFile":
        """Raises UnexpectedAnswer."""
        try:
            return cls(data["id"], data["filename"], data["bytes"], data)
        except (KeyError, TypeError) as error:
            raise UnexpectedAnswer(f"not a file: {str(data)[:200]}") from error


@dataclass(frozen=True, slots=True)
class BatchError:
    """Why a batch failed. `line` is the line of the input, counted from 1, None when no single line is the reason."""

    code: str
    message: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A batch's status and progress. Times are Unix seconds.

    The counts of requests and pairs are 0 until the service has read the input. `requests_done` includes failed ones;
    `requests_failed` counts those whose results are stored already.
    """

    id: str
    status: str
    endpoint: str
    input_file_id: str
    output_file_id: str | None
    error_file_id: str | None
    requests_total: int
    requests_done: int
    requests_failed: int
    pairs_total: int
    pairs_done: int
    pairs_per_second: float | None
    estimated_finish: float | None
    created: float
    expires: float | None
    finished: float | None
    errors: list[BatchError]
    metadata: Mapping[str, str]
    raw: JsonObject = field(repr=False)

    @property
    def final(self) -> bool:
        """Whether the status is final."""
        return self.status in FINAL_STATUSES

    @classmethod
    def read(cls, data: Any) -> "BatchJob":
        """Raises UnexpectedAnswer."""
        try:
            counts, progress = data["request_counts"], data.get("progress") or {}
            errors = (data.get("errors") or {}).get("data") or []
            return cls(
                id=data["id"],
                status=data["status"],
                endpoint=data["endpoint"],
                input_file_id=data["input_file_id"],
                output_file_id=data.get("output_file_id"),
                error_file_id=data.get("error_file_id"),
                requests_total=counts["total"],
                requests_done=progress.get("requests_done", counts["completed"] + counts["failed"]),
                requests_failed=counts["failed"],
                pairs_total=progress.get("pairs_total", 0),
                pairs_done=progress.get("pairs_done", 0),
                pairs_per_second=progress.get("pairs_per_second"),
                estimated_finish=progress.get("estimated_finish"),
                created=data["created_at"],
                expires=data.get("expires_at"),
                finished=next((data[name] for status in FINAL_STATUSES if data.get(name := f"{status}_at")), None),
                errors=[BatchError(error["code"], error["message"], error.get("line")) for error in errors],
                metadata=data.get("metadata") or {},
                raw=data,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UnexpectedAnswer(f"not a batch: {str(data)[:200]}") from error


@dataclass(frozen=True, slots=True)
class RequestResult:
    """The result of one request of a batch, or of a job of many requests: `response` or `error`.

    `index` is the request's position, from 0; in a file it is that of its line, blank lines included. `response` is
    the JSON of the endpoint's own format.
    """

    index: int
    custom_id: str | None
    response: JsonObject | None = None
    error: RerankError | None = None

    @property
    def ranking(self) -> Ranking:
        """The ranking. Raises the request's error, or UnexpectedAnswer when the endpoint has another format."""
        if self.error is not None:
            raise self.error
        return Ranking.read(self.response)

    @classmethod
    def read(cls, data: Any) -> "RequestResult":
        """Read a row of a job of many requests. Raises UnexpectedAnswer."""
        try:
            error = None if data.get("error") is None else error_of_object(data["error"], None)
            return cls(data["index"], data["custom_id"], data.get("result"), error)
        except (KeyError, TypeError, AttributeError) as failure:
            raise UnexpectedAnswer(f"not a result: {str(data)[:200]}") from failure

    @classmethod
    def read_row(cls, data: Any) -> "RequestResult":
        """Read a row of a batch's output or error file. Raises UnexpectedAnswer."""
        try:
            response = data.get("response") or {}
            if data.get("error") is None:
                return cls(data["line"] - 1, data["custom_id"], response["body"])
            error = error_of_object(data["error"], response.get("status_code"))
            return cls(data["line"] - 1, data["custom_id"], error=error)
        except (KeyError, TypeError, AttributeError) as failure:
            raise UnexpectedAnswer(f"not a row of a batch: {str(data)[:200]}") from failure


@dataclass(frozen=True, slots=True)
class ResultsPage:
    """A page of results of a job of many requests. `next` is where the next page begins; None after the last result."""

    results: list[RequestResult]
    next: int | None

    @classmethod
    def read(cls, data: Any) -> "ResultsPage":
        """Raises UnexpectedAnswer."""
        try:
            return cls([RequestResult.read(row) for row in data["data"]], data["next"])
        except (KeyError, TypeError) as error:
            raise UnexpectedAnswer(f"not a page of results: {str(data)[:200]}") from error
