"""What the load asks for, and what the undisturbed answer is. Pure: a seed and a number make a case."""

import random
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from worker.engines.base import Cancellation, ScoringBatch
from worker.engines.lexical import LexicalEngine

POISON_WORD = "poisonpill"
SHARD_TOKENS = 120
"""Cuts a LARGE case into several shards, and leaves the others in one."""

_TEXT = """
amber basalt cedar delta ember fjord glacier harbor island jasper kelp lagoon meadow nectar orchard prairie
quartz river summit tundra umber valley willow xylem yarrow zephyr
"""
_WORDS = _TEXT.split()
_NUMBER = re.compile(r"\bcase(\d+)\b")

Ranking = list[tuple[int, float]]
"""Index and score of each document, best first."""


class Kind(StrEnum):
    """How a case is asked for."""

    WAITING = "waiting"
    JOB = "job"
    LARGE = "large"
    """A job of several shards."""
    POISON = "poison"
    """A job that kills whoever scores it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One request. Its number stands in its query, so that it is known again wherever it turns up."""

    number: int
    kind: Kind
    query: str
    documents: tuple[str, ...]

    @property
    def body(self) -> dict[str, Any]:
        return {"query": self.query, "documents": list(self.documents), "return_documents": False}

    def expected(self) -> Ranking:
        """The ranking, computed by the engine itself without anything in between."""
        scores = LexicalEngine().score(ScoringBatch(self.query, list(self.documents)), Cancellation()).scores
        ranking = [(index, score) for index, score in enumerate(scores) if score is not None]
        return sorted(ranking, key=lambda row: -row[1])


def make_case(seed: int, number: int, kind: Kind) -> Case:
    """The case of that number."""
    rng = random.Random(f"{seed}-{number}")
    count = rng.randint(20, 36) if kind is Kind.LARGE else rng.randint(3, 4)
    documents = [" ".join(rng.choices(_WORDS, k=rng.randint(4, 9))) for _ in range(count)]
    if kind is Kind.POISON:
        documents[1] += f" {POISON_WORD}"
    return Case(number, kind, " ".join([*rng.sample(_WORDS, 3), f"case{number}"]), tuple(documents))


def number_in(text: str) -> int | None:
    """The number of the case that a text belongs to."""
    found = _NUMBER.search(text)
    return int(found.group(1)) if found else None


def ranking_of(answer: dict[str, Any]) -> Ranking:
    """What an answer of the root's dialect says. Raises KeyError when it is none."""
    return [(row["index"], row["relevance_score"]) for row in answer["results"]]
