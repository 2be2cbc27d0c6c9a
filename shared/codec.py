"""JSON in and out of Redis: the one place where a contract becomes bytes and comes back.

A request is kept in two parts, what it asks and its documents, so that a shard's worker reads its own documents only.
"""

from collections.abc import Iterable, Sequence

from pydantic import TypeAdapter

from shared.contracts import Document, RerankRequest, ShardScores

_DOCUMENTS = TypeAdapter(list[Document])


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


def encode_scores(scores: ShardScores) -> bytes:
    return scores.model_dump_json(exclude_defaults=True).encode()


def decode_scores(payload: bytes) -> ShardScores:
    return ShardScores.model_validate_json(payload)
