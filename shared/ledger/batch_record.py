"""A batch's and a file's record as the ledger stores them. Does not talk to Redis.

A batch is a file of requests and a cursor over it. A process, its runner, submits each line as a job and appends the
results to the output, which consists of immutable segments. There are two kinds: OpenAI's batches, whose input and
output are files, and jobs of many requests (`POST /v1/jobs`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from secrets import token_hex
from typing import Any

from shared.ledger.job_record import JobStatus

BULK_JOB_PREFIX = "bulk-"
"""The ids of jobs of many requests begin with it, those of jobs of one request with `job-`."""


class BatchKind(StrEnum):
    """Through which API a batch was created, and is shown."""

    BATCH = "batch"
    JOB = "job"


class BatchStatus(StrEnum):
    """The status of a batch, by OpenAI's names; the last four are final."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    CANCELLING = "cancelling"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in _FINAL


_FINAL = frozenset({BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.EXPIRED, BatchStatus.CANCELLED})


class Wake(StrEnum):
    """Whether a batch may start workers, or waits for workers that run for other reasons."""

    NOW = "now"
    WHEN_WARM = "when_warm"


@dataclass(frozen=True, slots=True)
class Segment:
    """An object in the payload store with consecutive results: first the rows that succeeded, then those that failed.

    `rows` counts both; `output_bytes` and `error_bytes` are the sizes of the two parts.
    """

    name: str
    rows: int
    output_bytes: int
    error_bytes: int

    def to_json(self) -> str:
        return json.dumps([self.name, self.rows, self.output_bytes, self.error_bytes])

    @classmethod
    def from_json(cls, text: bytes | str) -> "Segment":
        """Raises TypeError or ValueError."""
        return cls(*json.loads(text))


@dataclass(frozen=True, slots=True)
class BatchError:
    """Why a batch failed: a code, one sentence, and the line of the input, counted from 1."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One batch as the ledger stores it. Times are Unix milliseconds of Redis's clock, 0 while not reached.

    `input_name` is the input's object in the payload store, `input_file` the file that the caller named. `defaults`
    are fields of every request that a line may override. The cursor (`cursor_byte`, `cursor_line`) is behind the last
    line whose result is in a segment; `rows_ok` and `rows_failed` count these results. `rows_seen`, `pairs_seen` and
    `rate` (pairs per second) are the runner's progress, which may be ahead of the cursor. `lines`, `pairs` and `loads`
    (the pairs and estimated tokens of each model) are the totals, known after the validation.
    """

    id: str
    kind: BatchKind
    owner: str
    status: BatchStatus
    endpoint: str
    window: str
    input_name: str
    input_bytes: int
    created_ms: int
    expires_ms: int
    retain_seconds: int
    wake: Wake = Wake.NOW
    input_file: str | None = None
    defaults: Mapping[str, Any] | None = None
    metadata: Mapping[str, str] | None = None
    reserved_tokens: int = 0
    in_progress_ms: int = 0
    cancelling_ms: int = 0
    finalizing_ms: int = 0
    ended_ms: int = 0
    loads: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    lines: int = 0
    pairs: int = 0
    cursor_byte: int = 0
    cursor_line: int = 0
    rows_ok: int = 0
    rows_failed: int = 0
    pairs_done: int = 0
    rows_seen: int = 0
    pairs_seen: int = 0
    rate: float = 0.0
    output_file: str | None = None
    error_file: str | None = None
    errors: tuple[BatchError, ...] = ()

    @property
    def job_status(self) -> JobStatus:
        """The status by the names that jobs have."""
        return _JOB_STATUSES.get(self.status, JobStatus.RUNNING)

    @property
    def model(self) -> str | None:
        """The model of requests that name none; None for the default model."""
        return (self.defaults or {}).get("model")

    @classmethod
    def from_hash(cls, batch_id: str, fields: Mapping[bytes, bytes]) -> "BatchRecord":
        """Parse the hash of a batch. Raises LookupError, TypeError or ValueError when it is not one."""
        values: dict[str, Any] = {name.decode(): value.decode() for name, value in fields.items()}
        for name in _INTEGERS & values.keys():
            values[name] = int(values[name])
        for name in _OBJECTS & values.keys():
            values[name] = json.loads(values[name])
        return cls(
            id=batch_id,
            kind=BatchKind(values.pop("kind")),
            status=BatchStatus(values.pop("status")),
            wake=Wake(values.pop("wake", Wake.NOW)),
            rate=float(values.pop("rate", 0.0)),
            errors=tuple(BatchError(**error) for error in values.pop("errors", ())),
            **{name: value for name, value in values.items() if name in cls.__slots__},
        )

    def to_fields(self) -> dict[str, str | int]:
        """The fields of a new batch's hash."""
        fields: dict[str, str | int] = {
            name: getattr(self, name) for name in _STORED if getattr(self, name) is not None
        }
        for name in ("defaults", "metadata"):
            if (value := getattr(self, name)) is not None:
                fields[name] = json.dumps(value)
        return fields


_JOB_STATUSES = {
    BatchStatus.VALIDATING: JobStatus.QUEUED,
    BatchStatus.COMPLETED: JobStatus.SUCCEEDED,
    BatchStatus.FAILED: JobStatus.FAILED,
    BatchStatus.EXPIRED: JobStatus.EXPIRED,
    BatchStatus.CANCELLED: JobStatus.CANCELED,
}
_STORED = (
    *("kind", "owner", "status", "endpoint", "window", "input_name", "input_bytes", "wake", "input_file"),
    *("retain_seconds", "reserved_tokens"),
)
_OBJECTS = {"defaults", "metadata", "errors", "loads"}
_INTEGERS = {
    *("input_bytes", "created_ms", "expires_ms", "retain_seconds", "reserved_tokens", "in_progress_ms"),
    *("cancelling_ms", "finalizing_ms", "ended_ms", "lines", "pairs", "cursor_byte", "cursor_line"),
    *("rows_ok", "rows_failed", "pairs_done", "rows_seen", "pairs_seen"),
}


class FileSource(StrEnum):
    """Where a file's bytes are."""

    UPLOAD = "upload"
    """One object in the payload store."""
    OUTPUT = "output"
    """The first parts of a batch's segments."""
    ERRORS = "errors"
    """The second parts of a batch's segments."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of `size` bytes. `source_name` is the object of an upload, or the batch of a result. Times are Unix
    milliseconds.
    """

    id: str
    owner: str
    filename: str
    purpose: str
    size: int
    created_ms: int
    expires_ms: int
    source: FileSource
    source_name: str

    @classmethod
    def from_hash(cls, file_id: str, fields: Mapping[bytes, bytes]) -> "FileRecord":
        """Parse the hash of a file. Raises LookupError or ValueError when it is not one."""
        values = {name.decode(): value.decode() for name, value in fields.items()}
        return cls(
            id=file_id,
            owner=values["owner"],
            filename=values["filename"],
            purpose=values["purpose"],
            size=int(values["bytes"]),
            created_ms=int(values["created_ms"]),
            expires_ms=int(values["expires_ms"]),
            source=FileSource(values["source"]),
            source_name=values["source_name"],
        )


def new_batch_id(kind: BatchKind) -> str:
    """A new, unguessable id."""
    return f"batch_{token_hex(16)}" if kind is BatchKind.BATCH else f"{BULK_JOB_PREFIX}{token_hex(16)}"


def new_file_id() -> str:
    """A new, unguessable id."""
    return f"file-{token_hex(16)}"


def line_job_id(batch_id: str, line: int) -> str:
    """The job of a batch's line: the same for every attempt, so that submitting it again is harmless."""
    return f"{batch_id}.{line}"
