"""The times of a traced shard in this worker, and its spans."""

import time
from dataclasses import dataclass, field

from shared.ledger.verdicts import Claim
from shared.tracing import Attribute, record_spans


@dataclass(slots=True)
class ShardTrace:
    """Unix seconds, 0 when not reached. `queue_seconds`: from the job's acceptance to the claim."""

    traceparent: str
    queue_seconds: float
    claimed_at: float = field(default_factory=time.time)
    prepared_at: float = 0.0
    scored_at: float = 0.0

    @classmethod
    def of(cls, claim: Claim) -> "ShardTrace | None":
        """The trace of a claim; None when it is not traced."""
        return cls(claim.traceparent, claim.queue_ms / 1000) if claim.traceparent else None

    def prepared(self) -> None:
        """Its texts are tokenized, and the engine has its prompts."""
        self.prepared_at = time.time()

    def scored(self) -> None:
        self.scored_at = time.time()

    def record(self, model: str, work_class: str, outcome: str, pairs: int, tokens: int) -> None:
        """Record the spans of a shard that the ledger has accepted now."""
        now = time.time()
        queued_at = self.claimed_at - self.queue_seconds
        parts = {"queue": (queued_at, self.claimed_at)}
        if self.prepared_at:
            parts["tokenize"] = (self.claimed_at, self.prepared_at)
        if self.scored_at:
            parts["engine"] = (self.prepared_at or self.claimed_at, self.scored_at)
            parts["finish"] = (self.scored_at, now)
        attributes: dict[str, Attribute] = {
            "gen_ai.operation.name": "rerank",
            "gen_ai.request.model": model,
            "gen_ai.usage.input_tokens": tokens,
            "rerankq.class": work_class,
            "rerankq.outcome": outcome,
            "rerankq.pairs": pairs,
        }
        record_spans(self.traceparent, "shard", queued_at, now, attributes, parts)
