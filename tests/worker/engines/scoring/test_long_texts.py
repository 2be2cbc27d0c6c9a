"""Prompts of long documents are the same, whether the documents are tokenized in part or as a whole."""

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from shared.contracts import Truncation
from tests.worker.engines.scoring.small_tokenizers import TEXTS, tokenizer
from worker.engines.base import BatchScores, ScoringBatch
from worker.engines.scoring.base import Scoring
from worker.engines.scoring.embedding_scoring import EmbeddingScoring
from worker.engines.scoring.embeddings import EmbeddingCache
from worker.engines.scoring.late_scoring import LateScoring
from worker.engines.scoring.layouts import Layout
from worker.engines.scoring.list_scoring import ListScoring
from worker.engines.scoring.pair_scoring import PairScoring
from worker.engines.scoring.prompt_scoring import PromptScoring
from worker.engines.scoring.tokens import TextTokens

LIMIT = 50
RANDOM = random.Random(5)
WORDS = " ".join(TEXTS[:5]).split()


def words(number: int) -> str:
    return " ".join(RANDOM.choice(WORDS) for _ in range(number))


SHORT_QUERY, LONG_QUERY = words(4), words(80)
DOCUMENTS = [words(3), words(2000), words(30), "x" * 3000, words(1) + " " + "漢字" * 900, ""]


class Model:
    """A loaded model whose prompts are lists of ids, and whose scores follow from them."""

    max_tokens = LIMIT

    def __init__(self, tokens: TextTokens) -> None:
        self.tokens = tokens

    def engine_input(self, ids: list[int], first_typed: int | None = None) -> Any:
        return tuple(ids), first_typed

    def build_single(self, text: str) -> list[int]:
        return [1, *self._ids(text), 2]

    def build_pair(self, query: str, document: str, instruction: str | None = None) -> tuple[list[int], int | None]:
        return [1, *self._ids(query), 2, *self._ids(document), 2], None

    def build_list(self, query: str, documents: list[str], instruction: str | None) -> list[int]:
        return [1, *self._ids(query), *(number for document in documents for number in (2, *self._ids(document)))]

    def post_process(self, outputs: list[Any]) -> list[Any]:
        return outputs[1:] if len(outputs) > 1 else outputs * len(DOCUMENTS)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokens.backend.encode(text, add_special_tokens=False).ids
        return ids


def embedding(model: Model) -> Scoring:
    return EmbeddingScoring(model, Layout([1], [], [2]), EmbeddingCache(0))


KINDS: dict[str, Callable[[Model], Scoring]] = {
    "pair": lambda model: PairScoring(model, Layout([1], [2], [2])),
    "prompt": lambda model: PromptScoring(model, None),
    "late": lambda model: LateScoring(model, Layout([1], [], [2])),
    "embedding": embedding,
    "list": ListScoring,
}


def outcome(kind: str, batch: ScoringBatch, *, in_part: bool, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The prompts and results of a batch, or its error."""
    tokens = TextTokens(SimpleNamespace(_tokenizer=tokenizer("BERT")), vocabulary=10_000)
    if not in_part:
        monkeypatch.setattr(tokens._cuts, "next", lambda *_, **__: None)
    try:
        prepared = KINDS[kind](Model(tokens)).prepare(batch)
    except Exception as error:
        return type(error), str(error)
    if kind == "embedding":
        # The engine's embeddings are not needed to compare what goes in.
        return prepared.inputs
    outputs = [SimpleNamespace(error=None, outputs=hash(entry) % 1000) for entry in prepared.inputs]
    scores: BatchScores = prepared.scores(outputs)
    return prepared.inputs, scores


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("truncation", Truncation)
@pytest.mark.parametrize("query", [SHORT_QUERY, LONG_QUERY], ids=["short query", "long query"])
@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize("max_tokens_per_doc", [None, 7])
def test_prompts_and_truncation_are_those_of_whole_texts(
    kind: str,
    truncation: Truncation,
    query: str,
    chunks: int,
    max_tokens_per_doc: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = ScoringBatch(
        query=query,
        documents=DOCUMENTS,
        truncation=truncation,
        max_chunks_per_doc=chunks,
        max_tokens_per_doc=max_tokens_per_doc,
    )
    in_part = outcome(kind, batch, in_part=True, monkeypatch=monkeypatch)
    assert in_part == outcome(kind, batch, in_part=False, monkeypatch=monkeypatch)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "list"])
def test_these_batches_are_scored(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = ScoringBatch(query=SHORT_QUERY, documents=DOCUMENTS, max_chunks_per_doc=3)
    found = outcome(kind, batch, in_part=True, monkeypatch=monkeypatch)
    inputs = found if kind == "embedding" else found[0]
    assert len(inputs) > len(DOCUMENTS)
