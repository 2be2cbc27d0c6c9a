"""What the ledger needs to accept a job, and how it is divided into stored parts. Talks to no store."""

import hashlib
from dataclasses import dataclass, field

from shared.contracts import RerankRequest, WorkClass
from shared.ledger import encoding
from shared.partial_results import KnownScores
from shared.sharding import ShardSize


@dataclass(frozen=True, slots=True)
class Submission:
    """A job to be accepted.

    `sizes` are the sizes of its shards, in order; without shards the job succeeds at once. `messages` are the Celery
    messages of the first shards, which are enqueued at once; the others follow as shards are finished. `known_scores`
    covers the documents that are in no shard, None when all of them are. `idempotency` is the caller's Idempotency-Key.
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
