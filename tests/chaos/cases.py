"""The requests of the load, and the ranking expected for each. A seed and a number determine a case."""

import random
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from worker.engines.base import Cancellation, ScoringBatch
from worker.engines.lexical import LexicalEngine

POISON_WORD = "poisonpill"
SHARD_TOKENS = 120
"""Splits a LARGE case into several shards; every other case fits into one."""

_TEXT = """
amber basalt cedar delta ember fjord glacier harbor island jasper kelp lagoon meadow nectar orchard prairie
quartz river summit tundra umber valley willow xylem yarrow zephyr
"""
_WORDS = _TEXT.split()
_NUMBER = re.compile(r"\bcase(\d+)\b")

Ranking = list[tuple[int, float]]
"""Index and score of each document, best first."""


class Kind(StrEnum):
    """How the load sends a case."""

    WAITING = "waiting"
    """A call that waits for its result."""
    JOB = "job"
    """A job of one shard."""
    LARGE = "large"
    """A job of several shards."""
    POISON = "poison"
    """A job that kills every worker that scores it."""
    LINE = "line"
    """A line of a batch."""


@dataclass(frozen=True, slots=True)
class Case:
    """One request. Its query contains its number, so that a stored job can be matched to its case."""

    number: int
    kind: Kind
    query: str
    documents: tuple[str, ...]

    @property
    def body(self) -> dict[str, Any]:
        return {"query": self.query, "documents": list(self.documents), "return_documents": False}

    def expected(self) -> Ranking:
        """The ranking that the engine computes when it is called directly."""
        scores = LexicalEngine().score(ScoringBatch(self.query, list(self.documents)), Cancellation()).scores
        ranking = [(index, score) for index, score in enumerate(scores) if score is not None]
        return sorted(ranking, key=lambda row: -row[1])


def make_case(seed: int, number: int, kind: Kind) -> Case:
    """Return the case with this number."""
    rng = random.Random(f"{seed}-{number}")
    count = rng.randint(20, 36) if kind is Kind.LARGE else rng.randint(3, 4)
    documents = _make_documents(rng, count)
    if kind is Kind.POISON:
        documents[1] += f" {POISON_WORD}"
    return Case(number, kind, _make_query(rng, number), tuple(documents))


def make_line(seed: int, number: int, count: int) -> Case:
    """Return the line with this number of a batch, with `count` documents."""
    rng = random.Random(f"{seed}-line-{number}")
    documents = _make_documents(rng, count)
    return Case(number, Kind.LINE, _make_query(rng, number), tuple(documents))


def _make_documents(rng: random.Random, count: int) -> list[str]:
    return [" ".join(rng.choices(_WORDS, k=rng.randint(4, 9))) for _ in range(count)]


def _make_query(rng: random.Random, number: int) -> str:
    return " ".join([*rng.sample(_WORDS, 3), f"case{number}"])


def find_case_number(text: str) -> int | None:
    """Return the case number that the text contains, if any."""
    found = _NUMBER.search(text)
    return int(found.group(1)) if found else None


def parse_ranking(response: dict[str, Any]) -> Ranking:
    """Return the ranking in a response of the root dialect. Raises KeyError if the response has none."""
    return [(row["index"], row["relevance_score"]) for row in response["results"]]
