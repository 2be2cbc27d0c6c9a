"""Encodes requests and scores as JSON for Redis, and decodes them.

A request is stored in parts, so that a worker reads only the documents of its shard: the request without documents, the
documents of each shard, and the documents that are in no shard together with their known scores.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter

from shared.contracts import Document, NumberedDocument, RerankRequest, ShardScores, Truncation
from shared.partial_results import KnownScores, PairScore, merge_documents

_DOCUMENTS = TypeAdapter(list[Document])
_NUMBERED = TypeAdapter(list[NumberedDocument])


class _StoredKnownScores(BaseModel):
    documents: list[Document]
    scores: dict[int, PairScore] = {}
    duplicates: dict[int, int] = {}


def encode_request(request: RerankRequest) -> bytes:
    """The request without its documents."""
    return request.model_dump_json(exclude_defaults=True, exclude={"documents"}).encode()


def encode_documents(documents: Sequence[Document]) -> bytes:
    """One shard's documents."""
    if documents and isinstance(documents[0], NumberedDocument):
        return _NUMBERED.dump_json(list(documents), exclude_defaults=True)  # type: ignore[arg-type]
    return _DOCUMENTS.dump_json(list(documents), exclude_defaults=True)


def decode_request(payload: bytes, shards: Iterable[bytes]) -> RerankRequest:
    """The request with the documents of the given shards, in order."""
    request = RerankRequest.model_validate_json(payload)
    stored: TypeAdapter[Any] = _NUMBERED if request.truncation is Truncation.NONE else _DOCUMENTS
    documents = [document for shard in shards for document in stored.validate_json(shard)]
    return request.model_copy(update={"documents": documents})


def encode_known_scores(known: KnownScores, documents: Sequence[Document]) -> bytes:
    """The known scores and their documents; `documents` are all documents of the request."""
    own = [documents[position] for position in known.positions()]
    stored = _StoredKnownScores.model_construct(
        documents=own, scores=dict(known.scores), duplicates=dict(known.duplicates)
    )
    return stored.model_dump_json(exclude_defaults=True).encode()


def decode_shard_request(payload: bytes, documents: bytes) -> RerankRequest:
    """The request of one shard: its documents, and the query that all of them are scored against."""
    request = decode_request(payload, [documents])
    own = request.documents[0].query if request.documents else None
    return request if own is None else request.model_copy(update={"query": own})


def decode_full_request(
    payload: bytes, shards: Iterable[bytes], known_scores: bytes | None
) -> tuple[RerankRequest, KnownScores | None]:
    """The request with all of its documents, and the known scores of those that are in no shard."""
    request = decode_request(payload, shards)
    if known_scores is None:
        return request, None
    stored = _StoredKnownScores.model_validate_json(known_scores)
    known = KnownScores(stored.scores, stored.duplicates)
    documents = merge_documents(known, stored.documents, request.documents)
    return request.model_copy(update={"documents": documents}), known


def encode_scores(scores: ShardScores) -> bytes:
    return scores.model_dump_json(exclude_defaults=True).encode()


def decode_scores(payload: bytes) -> ShardScores:
    return ShardScores.model_validate_json(payload)
