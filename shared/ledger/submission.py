"""What the ledger needs to accept a job, and how it is divided into stored parts. Talks to no store."""

import hashlib
import math
from dataclasses import dataclass, field
from enum import StrEnum

from shared.contracts import RerankRequest, WorkClass
from shared.errors import Overloaded
from shared.ledger import encoding
from shared.owner_limits import DEFAULT_TERMS, OwnerTerms
from shared.partial_results import KnownScores
from shared.sharding import ShardSize
from shared.webhooks import WebhookTarget

_RETRY_AFTER_UNKNOWN_SECONDS = 10


class ExceededLimit(StrEnum):
    """The limit in PendingLimits that a submission exceeds."""

    AHEAD = "ahead"
    TOKENS = "tokens"
    JOBS = "jobs"


@dataclass(frozen=True, slots=True)
class PendingLimits:
    """How much work may be pending in a pool when a job is accepted, in estimated tokens; None: no limit.

    `tokens_ahead` limits what is scored before the job, in its class and given its owner's share of it. `tokens` and
    `jobs` limit all pending work of the pool. Jobs whose pairs are all known are not limited. `tokens_per_second` is
    the pool's throughput, if known.
    """

    tokens_ahead: int | None = None
    tokens: int | None = None
    jobs: int | None = None
    tokens_per_second: float | None = None

    def error(self, model: str, exceeded: ExceededLimit, number: int) -> Overloaded:
        """The error for a job that exceeds a limit by this number of tokens or jobs; see submit.lua."""
        match exceeded:
            case ExceededLimit.AHEAD:
                seconds = self._seconds(number)
                wait = f"{seconds} s longer than this request may wait" if seconds else "too long for this request"
                return Overloaded(
                    f"model {model!r} is overloaded: its queue is {wait}", retry_after=seconds, reason="wait"
                )
            case ExceededLimit.TOKENS:
                message = f"model {model!r} is overloaded: at most {self.tokens} estimated tokens may be pending"
                return Overloaded(
                    message, retry_after=self._seconds(number) or _RETRY_AFTER_UNKNOWN_SECONDS, reason="pending_tokens"
                )
            case ExceededLimit.JOBS:
                message = f"model {model!r} is overloaded: at most {self.jobs} jobs may be pending"
                return Overloaded(message, retry_after=_RETRY_AFTER_UNKNOWN_SECONDS, reason="pending_jobs")

    def _seconds(self, tokens: int) -> int | None:
        """How long the pool takes for so many tokens, rounded up."""
        return max(1, math.ceil(tokens / self.tokens_per_second)) if self.tokens_per_second else None


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What a caller asks of a job besides its ranking. None: the server's setting.

    `deadline_seconds`: the job expires when it has not ended by then, counted from its acceptance. `result_seconds`:
    how long it can be read after its end. `webhook`: where its end is reported, beside the endpoints of its owner.
    `execution_seconds`: the job expires when it has not ended so long after a worker has started it. `kept_seconds`:
    the job is deleted so long after its acceptance, whether it has ended or not.
    """

    deadline_seconds: float | None = None
    result_seconds: float | None = None
    webhook: WebhookTarget | None = None
    execution_seconds: float | None = None
    kept_seconds: float | None = None


DEFAULT_OPTIONS = JobOptions()


@dataclass(frozen=True, slots=True)
class Submission:
    """A job to be accepted.

    `sizes` are the sizes of its shards, in order; without shards the job succeeds at once. `messages` are the Celery
    messages of the first shards, which are enqueued at once; the others follow as shards are finished. `known_scores`
    covers the documents that are in no shard, None when all of them are. `idempotency` is the caller's Idempotency-Key.
    `terms` are the owner's limits and its weight. `batch` is the batch of which this job is one line: such a job is not
    listed, and does not count for its owner's limits. `result_seconds` is how long the job can be read after its end,
    None for the ledger's own lifetime. `webhooks` is what its end delivers, as JSON (api/webhooks/subscriptions.py).
    `execution_seconds` and `kept_seconds` are those of JobOptions.
    """

    job_id: str
    request: RerankRequest
    model: str
    dialect: str
    owner: str
    work_class: WorkClass
    sizes: list[ShardSize]
    messages: list[bytes]
    deadline_seconds: float
    idempotency: str | None = None
    known_scores: KnownScores | None = None
    limits: PendingLimits = PendingLimits()
    terms: OwnerTerms = DEFAULT_TERMS
    batch: str | None = None
    result_seconds: float | None = None
    webhooks: str = ""
    execution_seconds: float | None = None
    kept_seconds: float | None = None

    def encode_shards(self) -> list[bytes]:
        """The documents of each shard, encoded."""
        documents = self.request.documents
        if self.known_scores is not None:
            documents = self.known_scores.documents_to_score(documents)
        encoded: list[bytes] = []
        start = 0
        for size in self.sizes:
            encoded.append(encoding.encode_documents(documents[start : start + size.pairs]))
            start += size.pairs
        return encoded

    def fingerprint(self, request: bytes, shards: list[bytes]) -> str:
        """A digest of the dialect, the encoded `request` and all documents, however they are sharded."""
        is_one_shard = self.known_scores is None and len(shards) == 1
        documents = shards[0] if is_one_shard else encoding.encode_documents(self.request.documents)
        digest = hashlib.sha256(f"{self.dialect}\n".encode())
        for part in (request, documents):
            digest.update(b"%d:" % len(part) + part)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The job of a submission; `existing` when its Idempotency-Key already referred to a job.

    `created_ms` is the time of acceptance, Unix milliseconds of Redis's clock; 0 for an existing job.
    """

    job_id: str
    existing: bool
    created_ms: int = field(default=0, compare=False)
