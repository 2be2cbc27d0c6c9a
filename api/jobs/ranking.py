"""Ranks a finished job: merges its shards, normalizes and sorts the scores, applies top_n. Pure functions."""

import math
from collections.abc import Sequence
from typing import Protocol

from shared.contracts import RankedRow, RerankRequest, RerankResult, ScoreScale, ShardScores
from shared.partial_results import KnownScores, PairScore, merge_scores


class RankedJob(Protocol):
    """The fields of a job that appear in its result; JobRecord has them."""

    @property
    def id(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def created_ms(self) -> int:
        """Unix milliseconds."""


def rank(
    job: RankedJob, request: RerankRequest, shards: Sequence[ShardScores], known: KnownScores | None = None
) -> RerankResult:
    """The ranked result of a finished job; `known` has the documents that are in no shard.

    Documents with equal scores keep the request's order; failed documents come last.
    """
    pairs, documents = merge_scores(shards, known), request.documents
    scores = _final_scores(request, pairs)
    # Clients require a number for a failed document. The lowest score keeps it last if they sort again.
    lowest = min([0.0, *(score for score in scores if score is not None)])
    # Without failed documents, the scores alone are the keys of a stable sort.
    failed = None in scores
    order = sorted(range(len(pairs)), key=lambda index: _sort_key(scores[index])) if failed else _descending(scores)
    ranked = [
        RankedRow.of(index, lowest if (score := scores[index]) is None else score, documents[index], pairs[index])
        for index in order[: request.top_n]
    ]
    return RerankResult(
        id=job.id,
        model=request.model or job.model,
        created=job.created_ms // 1000,
        return_documents=request.return_documents,
        rows=ranked,
        prompt_tokens=sum(shard.prompt_tokens for shard in shards),
        cached_pairs=len(known.scores) if known else 0,
        queue_ms=max((shard.queue_ms for shard in shards), default=0.0),
        start_ms=max((shard.start_ms for shard in shards), default=0.0),
        inference_ms=sum(shard.inference_ms for shard in shards),
    )


def normalize(score: float, scale: ScoreScale) -> float:
    """The sigmoid of a logit, between 0 and 1; a similarity unchanged."""
    if scale is ScoreScale.SIMILARITY:
        return score
    if score >= 0:
        return 1.0 / (1.0 + math.exp(-score))
    # Equal to the above, but exp() does not overflow for very negative logits.
    return (power := math.exp(score)) / (1.0 + power)


def _sort_key(score: float | None) -> tuple[bool, float]:
    return (score is None, -(score or 0.0))


def _descending(scores: Sequence[float | None]) -> list[int]:
    """The positions of the scores, highest first; equal ones keep their order."""
    return sorted(range(len(scores)), key=scores.__getitem__, reverse=True)  # type: ignore[arg-type]


def _final_scores(request: RerankRequest, pairs: Sequence[PairScore]) -> list[float | None]:
    """Each document's score as the caller gets it, None if it failed; in the request's order."""
    if request.raw_scores:
        return [pair.score for pair in pairs]
    return [None if pair.score is None else normalize(pair.score, pair.scale) for pair in pairs]
