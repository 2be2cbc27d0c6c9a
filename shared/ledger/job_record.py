"""A job's statuses, its record as the ledger stores it, and places in lists of jobs. Does not talk to Redis."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from secrets import token_hex

from shared.contracts import WorkClass


class JobStatus(StrEnum):
    """The status of a job; the last four are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        return self not in (JobStatus.QUEUED, JobStatus.RUNNING)


@dataclass(frozen=True, slots=True)
class JobFailure:
    """Why a job failed: an error code and one sentence, and what the error of that code has besides."""

    code: str
    message: str
    param: str | None = None
    tokens: int | None = None
    limit: int | None = None

    def to_json(self) -> str:
        return json.dumps({name: value for name, value in asdict(self).items() if value is not None})


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job as the ledger stores it. Times are Unix milliseconds of Redis's clock, 0 while not reached.

    Of its `pairs`, `pairs_known` needed no worker (a cached score, or a repeated text); `pairs_scored` counts the pairs
    that workers have scored so far. `result_ttl_ms` is how long it can be read after its end.
    """

    id: str
    status: JobStatus
    model: str
    dialect: str
    owner: str
    work_class: WorkClass
    pairs: int
    pairs_known: int
    pairs_scored: int
    shards: int
    shards_left: int
    created_ms: int
    started_ms: int
    finished_ms: int
    deadline_ms: int
    failure: JobFailure | None
    result_ttl_ms: int = 0

    @classmethod
    def from_hash(cls, job_id: str, fields: Mapping[bytes, bytes]) -> "JobRecord":
        """Parse the hash of a job. Raises KeyError or ValueError when it is not one."""

        def number(name: bytes) -> int:
            return int(fields.get(name, b"0"))

        raw_failure = fields.get(b"failure")
        return cls(
            id=job_id,
            status=JobStatus(fields[b"status"].decode()),
            model=fields[b"model"].decode(),
            dialect=fields[b"dialect"].decode(),
            owner=fields[b"owner"].decode(),
            work_class=WorkClass(fields[b"class"].decode()),
            pairs=number(b"pairs"),
            pairs_known=number(b"pairs_known"),
            pairs_scored=number(b"pairs_scored"),
            shards=number(b"shards"),
            shards_left=number(b"shards_left"),
            created_ms=number(b"created_ms"),
            started_ms=number(b"started_ms"),
            finished_ms=number(b"finished_ms"),
            deadline_ms=number(b"deadline_ms"),
            failure=JobFailure(**json.loads(raw_failure)) if raw_failure else None,
            result_ttl_ms=number(b"result_ttl_ms"),
        )


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A job's place in a list, which is sorted by these fields. Times are Unix milliseconds."""

    created_ms: int
    job_id: str

    def __str__(self) -> str:
        return f"{self.created_ms}-{self.job_id}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Raises ValueError."""
        created_ms, _, job_id = text.partition("-")
        return cls(int(created_ms), job_id)


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs are wanted: every one when a field is empty. `created_from` and `created_to` are inclusive, ms."""

    statuses: Collection[JobStatus] = ()
    model: str | None = None
    created_from: int | None = None
    created_to: int | None = None

    def wants(self, status: JobStatus, model: str | None) -> bool:
        """Whether a job with this status and model is wanted."""
        return (not self.statuses or status in self.statuses) and self.model in (None, model)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A shard that exceeded its retry budget, and failed its job at `at_ms` (Unix milliseconds)."""

    job_id: str
    shard: int
    model: str
    failure: JobFailure
    crashes: int
    retries: int
    at_ms: int

    @classmethod
    def from_json(cls, text: bytes) -> "DeadLetter":
        """Parse an entry of the list. Raises KeyError, TypeError or ValueError when it is not one."""
        entry = json.loads(text)
        failure = JobFailure(**entry["failure"])
        return cls(
            entry["job"], entry["shard"], entry["model"], failure, entry["crashes"], entry["retries"], entry["at_ms"]
        )


def new_job_id() -> str:
    """A new id. It is unguessable: without API keys, knowing it is enough to read the job."""
    return f"job-{token_hex(16)}"
