"""JSON in and out of Redis: the one place where a contract becomes bytes and comes back.

A request is kept in parts, what it asks and its documents, so that a shard's worker reads its own documents only.
Documents that no shard holds are kept in a part of their own, beside what is known of their scores.
"""

from collections.abc import Iterable, Sequence

from pydantic import BaseModel, TypeAdapter

from shared.contracts import Document, RerankRequest, ShardScores
from shared.partial_results import KnownScores, PairScore, merge_documents

_DOCUMENTS = TypeAdapter(list[Document])


class _StoredKnownScores(BaseModel):
    documents: list[Document]
    scores: dict[int, PairScore] = {}
    duplicates: dict[int, int] = {}


def encode_request(request: RerankRequest) -> bytes:
    """All of the request but its documents."""
    return request.model_dump_json(exclude_defaults=True, exclude={"documents"}).encode()


def encode_documents(documents: Sequence[Document]) -> bytes:
    """One shard's documents."""
    return _DOCUMENTS.dump_json(list(documents), exclude_defaults=True)


def decode_request(payload: bytes, slices: Iterable[bytes]) -> RerankRequest:
    """The request with the documents of the given shards, in their order."""
    documents = [document for part in slices for document in _DOCUMENTS.validate_json(part)]
    return RerankRequest.model_validate_json(payload).model_copy(update={"documents": documents})


def encode_known_scores(rest: KnownScores, documents: Sequence[Document]) -> bytes:
    """The part of a request that no shard holds; `documents` are all of the request's."""
    apart = [documents[position] for position in rest.positions()]
    stored = _StoredKnownScores.model_construct(
        documents=apart, scores=dict(rest.scores), duplicates=dict(rest.duplicates)
    )
    return stored.model_dump_json(exclude_defaults=True).encode()


def decode_shard_request(payload: bytes, part: bytes) -> RerankRequest:
    """One shard's request: its documents, and the query that all of them are scored against."""
    request = decode_request(payload, [part])
    own = request.documents[0].query if request.documents else None
    return request if own is None else request.model_copy(update={"query": own})


def decode_full_request(
    payload: bytes, slices: Iterable[bytes], rest: bytes | None
) -> tuple[RerankRequest, KnownScores | None]:
    """The request with all of its documents, and what of it no shard holds."""
    request = decode_request(payload, slices)
    if rest is None:
        return request, None
    stored = _StoredKnownScores.model_validate_json(rest)
    apart = KnownScores(stored.scores, stored.duplicates)
    documents = merge_documents(apart, stored.documents, request.documents)
    return request.model_copy(update={"documents": documents}), apart


def encode_scores(scores: ShardScores) -> bytes:
    return scores.model_dump_json(exclude_defaults=True).encode()


def decode_scores(payload: bytes) -> ShardScores:
    return ShardScores.model_validate_json(payload)
