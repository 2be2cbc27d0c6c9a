"""Splits a request into pairs that need scoring and pairs whose scores are known, and merges the scores again.

Pure functions. Each distinct text is scored once. Owns which document stands at which position of a request; knows
neither where known scores come from nor how a job is stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from shared.contracts import Document, ScoreScale, ShardScores


class PairScore(NamedTuple):
    """The outcome of one pair. The fields have the meaning of those in ShardScores, for one pair."""

    score: float | None
    scale: ScoreScale
    truncated: bool = False
    window: tuple[int, int] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class KnownScores:
    """The documents of a request that are in no shard, by their position in the request.

    `scores`: outcomes that were known before the job was submitted. `duplicates`: the position of an earlier document
    with the same text, which is in a shard.
    """

    scores: Mapping[int, PairScore] = field(default_factory=dict)
    duplicates: Mapping[int, int] = field(default_factory=dict)

    def positions(self) -> list[int]:
        """The positions of all of these documents, ascending."""
        return sorted([*self.scores, *self.duplicates])

    def documents_to_score(self, documents: Sequence[Document]) -> list[Document]:
        """The documents that go into shards, in order, out of all of the request's `documents`."""
        return [
            document
            for position, document in enumerate(documents)
            if position not in self.scores and position not in self.duplicates
        ]


def split_known(texts: Sequence[str], known: Mapping[str, PairScore]) -> KnownScores | None:
    """Find the documents that need no scoring: those with a known score, and duplicates. None when there are none.

    `texts` are the document texts of the request; `known` maps texts to scores.
    """
    first_positions: dict[str, int] = {}
    scores: dict[int, PairScore] = {}
    duplicates: dict[int, int] = {}
    for position, text in enumerate(texts):
        if text in known:
            scores[position] = known[text]
        elif (first := first_positions.setdefault(text, position)) != position:
            duplicates[position] = first
    return KnownScores(scores, duplicates) if scores or duplicates else None


def merge_scores(shards: Sequence[ShardScores], known: KnownScores | None) -> list[PairScore]:
    """The outcome of every document, in the order of the request."""
    scored = [pair for shard in shards for pair in pair_scores(shard)]
    if known is None:
        return scored
    from_shards = iter(scored)
    merged: list[PairScore] = []
    for position in range(len(scored) + len(known.scores) + len(known.duplicates)):
        if (first := known.duplicates.get(position)) is not None:
            merged.append(merged[first])
        else:
            merged.append(known.scores.get(position) or next(from_shards))
    return merged


def pair_scores(shard: ShardScores) -> list[PairScore]:
    """The outcomes of one shard, one per pair."""
    truncated = set(shard.truncated)
    return [
        PairScore(score, shard.scale, position in truncated, shard.windows.get(position), shard.errors.get(position))
        for position, score in enumerate(shard.scores)
    ]


def merge_documents(
    known: KnownScores, known_documents: Sequence[Document], scored_documents: Sequence[Document]
) -> list[Document]:
    """All documents of a request, in its order: those of `known`, and those of the shards between them.

    Raises ValueError when `known_documents` are not as many as the positions in `known`.
    """
    from_shards = iter(scored_documents)
    by_position = dict(zip(known.positions(), known_documents, strict=True))
    count = len(scored_documents) + len(by_position)
    return [by_position[position] if position in by_position else next(from_shards) for position in range(count)]
