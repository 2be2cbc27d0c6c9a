"""What of a request goes to a worker, and how the scores of the whole are put back together. Pure.

A worker gets each text once, and none whose score is known. Owns which document stands where; knows neither where
known scores come from nor how a job is stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from shared.contracts import Document, ScoreScale, ShardScores


class PairScore(NamedTuple):
    """One pair's outcome; the fields are those of ShardScores, for this pair alone."""

    score: float | None
    scale: ScoreScale
    truncated: bool = False
    window: tuple[int, int] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class KnownScores:
    """The documents that no shard holds, by position in the request.

    `known`: their scores were there before the job was. `repeats`: their text is that of a document of a shard, whose
    position follows.
    """

    known: Mapping[int, PairScore] = field(default_factory=dict)
    repeats: Mapping[int, int] = field(default_factory=dict)

    def positions(self) -> list[int]:
        """In the request's order."""
        return sorted([*self.known, *self.repeats])

    def scored(self, documents: Sequence[Document]) -> list[Document]:
        """The documents that go to the shards, out of all of the request's, in order."""
        return [
            document
            for position, document in enumerate(documents)
            if position not in self.known and position not in self.repeats
        ]


def split_known(texts: Sequence[str], known: Mapping[str, PairScore]) -> KnownScores | None:
    """What of the request is not to be scored, given the scores of some texts; None when all of it is."""
    first: dict[str, int] = {}
    found: dict[int, PairScore] = {}
    repeats: dict[int, int] = {}
    for position, text in enumerate(texts):
        if text in known:
            found[position] = known[text]
        elif (before := first.setdefault(text, position)) != position:
            repeats[position] = before
    return KnownScores(found, repeats) if found or repeats else None


def merge_scores(shards: Sequence[ShardScores], rest: KnownScores | None) -> list[PairScore]:
    """Each document's outcome, in the request's order."""
    scored = [pair for shard in shards for pair in split(shard)]
    if rest is None:
        return scored
    from_shards = iter(scored)
    whole: list[PairScore] = []
    for position in range(len(scored) + len(rest.known) + len(rest.repeats)):
        if (before := rest.repeats.get(position)) is not None:
            whole.append(whole[before])
        else:
            whole.append(rest.known.get(position) or next(from_shards))
    return whole


def split(shard: ShardScores) -> list[PairScore]:
    """One shard's outcomes, pair by pair."""
    truncated = set(shard.truncated)
    return [
        PairScore(score, shard.scale, position in truncated, shard.windows.get(position), shard.errors.get(position))
        for position, score in enumerate(shard.scores)
    ]


def merge_documents(rest: KnownScores, apart: Sequence[Document], scored: Sequence[Document]) -> list[Document]:
    """All of the request's documents: those that no shard holds, `apart`, at their positions among the others."""
    others = iter(scored)
    own = dict(zip(rest.positions(), apart, strict=True))
    return [own[position] if position in own else next(others) for position in range(len(scored) + len(own))]
