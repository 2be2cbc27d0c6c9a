"""JSON in and out of Redis: the one place where a contract becomes bytes and comes back."""

from shared.contracts import RerankRequest, ShardScores


def encode_request(request: RerankRequest) -> bytes:
    return request.model_dump_json(exclude_defaults=True).encode()


def decode_request(payload: bytes) -> RerankRequest:
    return RerankRequest.model_validate_json(payload)


def encode_scores(scores: ShardScores) -> bytes:
    return scores.model_dump_json(exclude_defaults=True).encode()


def decode_scores(payload: bytes) -> ShardScores:
    return ShardScores.model_validate_json(payload)
