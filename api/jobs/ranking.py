"""From shards to the answer: merge, normalize, sort, cut. Pure."""

import math
from collections.abc import Sequence
from typing import Protocol

from shared.contracts import RankedRow, RerankRequest, RerankResult, ScoreScale, ShardScores
from shared.partial_results import KnownScores, PairScore, merge_scores


class RankedJob(Protocol):
    """What an answer says of its job; a JobRecord says more."""

    @property
    def id(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def created_ms(self) -> int:
        """Unix milliseconds."""


def rank(
    job: RankedJob, request: RerankRequest, shards: Sequence[ShardScores], rest: KnownScores | None = None
) -> RerankResult:
    """The ranked result of a finished job; `rest` is what no shard of it holds.

    Equal scores keep the request's order; failed documents come last.
    """
    rows = _rows(request, merge_scores(shards, rest))
    # A failed document has no score; clients need a number, and one that leaves it last if they sort again.
    floor = min([0.0, *(score for score, _ in rows if score is not None)])
    order = sorted(range(len(rows)), key=lambda index: _sort_key(rows[index][0]))
    ranked = [
        rows[index][1].model_copy(update={"score": floor if (score := rows[index][0]) is None else score})
        for index in order[: request.top_n]
    ]
    return RerankResult(
        id=job.id,
        model=request.model or job.model,
        created=job.created_ms // 1000,
        return_documents=request.return_documents,
        rows=ranked,
        prompt_tokens=sum(shard.prompt_tokens for shard in shards),
        cached_pairs=len(rest.known) if rest else 0,
        queue_ms=max((shard.queue_ms for shard in shards), default=0.0),
        start_ms=max((shard.start_ms for shard in shards), default=0.0),
        inference_ms=sum(shard.inference_ms for shard in shards),
    )


def normalize(score: float, scale: ScoreScale) -> float:
    """A raw score as 0..1: the sigmoid of a logit; a similarity as it is."""
    if scale is ScoreScale.SIMILARITY:
        return score
    if score >= 0:
        return 1.0 / (1.0 + math.exp(-score))
    # The same value, without an overflow for very negative logits.
    return (power := math.exp(score)) / (1.0 + power)


def _sort_key(score: float | None) -> tuple[bool, float]:
    return (score is None, -(score or 0.0))


def _rows(request: RerankRequest, pairs: Sequence[PairScore]) -> list[tuple[float | None, RankedRow]]:
    """Each document's score, None where it failed alone, beside its row; in the request's order."""
    rows: list[tuple[float | None, RankedRow]] = []
    for index, pair in enumerate(pairs):
        raw = pair.score
        score = raw if raw is None or request.raw_scores else normalize(raw, pair.scale)
        row = RankedRow.model_construct(
            index=index,
            score=0.0,
            document=request.documents[index],
            truncated=pair.truncated,
            window=pair.window,
            error=pair.error,
        )
        rows.append((score, row))
    return rows
