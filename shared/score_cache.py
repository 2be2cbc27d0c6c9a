"""Scores that are known already: a pair that was scored once needs no worker. Read by the API, written by workers.

A score is known by all that it depends on: the model (not its name), the limits, the instruction, the query and the
document's text. Owns that digest and a score's bytes. Only helps: what cannot be read is a miss, what cannot be written
is lost, and neither is an error. What a model is served from must not change in place: its scores would outlive it.
"""

import asyncio
import json
import logging
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import RedisError

from shared.contracts import RerankRequest, ScoreScale, ShardScores
from shared.keys import service_keys
from shared.models import ModelSpec
from shared.partial_results import PairScore, split
from shared.store.scripts import script_source

logger = logging.getLogger(__name__)

FORMAT = 1
"""To be raised when a digest or a value comes to mean something else: older scores are then never found."""
_DIGEST_BYTES = 20
_AT_ONCE = 500
"""Scores read or written in one command, and more in several: Redis does nothing else meanwhile."""
_SLICE = 1_000_000
"""Characters hashed before others get their turn in the event loop: about a millisecond."""
_COST_OF_A_TEXT = 1000
"""What hashing even an empty text costs, in characters."""

_VALUE = struct.Struct("<dB")
_VALUE_WITH_WINDOW = struct.Struct("<dBII")
_SIMILARITY, _TRUNCATED = 1, 2


class ScoreReader:
    """The API's half."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def read(self, spec: ModelSpec, request: RerankRequest, texts: Sequence[str]) -> dict[str, PairScore]:
        """The known scores among different texts under the request's query, by text. A Redis that fails knows none."""
        names = await _names(spec, request, texts)
        values: list[Any] = []
        try:
            for start in range(0, len(names), _AT_ONCE):
                values += await self._client.mget(names[start : start + _AT_ONCE])
        except (RedisError, OSError) as error:
            logger.debug("known scores could not be read: %.200s", error)
        # Shorter than the texts when Redis failed halfway.
        found = zip(texts, values, strict=False)
        return {text: score for text, value in found if value is not None and (score := _unpack(value)) is not None}


class ScoreWriter:
    """The worker's half, for one model: blocking, and safe to share between threads."""

    def __init__(self, client: redis.Redis, spec: ModelSpec, *, seconds: float, entries: int) -> None:
        """Each score is known for `seconds`, the newest `entries` of them at most."""
        self._spec = spec
        self._limits = (int(seconds * 1000), entries)
        self._remember = client.register_script(script_source("cache_scores"))

    def write(self, request: RerankRequest, scores: ShardScores) -> None:
        """Remember what a shard's documents, those of `request`, scored; see `write_all`."""
        self.write_all([(request, scores)])

    def write_all(self, shards: Iterable[tuple[RerankRequest, ShardScores]]) -> None:
        """Remember the scores of several shards, 500 in a round trip. Raises nothing when Redis is away or full.

        A document that failed is not remembered, and no score of a listwise model.
        """
        if self._spec.listwise:
            return
        pairs = [part for request, scores in shards for part in self._pairs(request, scores)]
        try:
            for start in range(0, len(pairs), 2 * _AT_ONCE):
                args = (service_keys.cached_score(""), *self._limits, *pairs[start : start + 2 * _AT_ONCE])
                self._remember(keys=[service_keys.CACHED_SCORES], args=args)
        except (RedisError, OSError) as error:
            logger.debug("scores could not be remembered: %.200s", error)

    def _pairs(self, request: RerankRequest, scores: ShardScores) -> Iterator[str | bytes]:
        """Digest, value, digest, value ..."""
        digest_of = _digests(self._spec, request)
        for document, pair in zip(request.documents, split(scores), strict=False):
            if (value := _pack(pair)) is not None:
                yield digest_of(document.text)
                yield value


async def _names(spec: ModelSpec, request: RerankRequest, texts: Sequence[str]) -> list[str]:
    """The key of each text's score; of many or long texts, with pauses for others."""
    digest_of = _digests(spec, request)
    names: list[str] = []
    work = 0
    for text in texts:
        if work > _SLICE:
            await asyncio.sleep(0)
            work = 0
        work += _COST_OF_A_TEXT + len(text)
        digest = digest_of(text) if len(text) < _SLICE else await asyncio.to_thread(digest_of, text)
        names.append(service_keys.cached_score(digest))
    return names


def _digests(spec: ModelSpec, request: RerankRequest) -> Callable[[str], str]:
    """Answers the digest of a document's text under this model and request."""
    start = blake2b(digest_size=_DIGEST_BYTES)
    model = (spec.source or spec.name, spec.revision, spec.engine, spec.engine_args, spec.score_template)
    limits = (
        request.max_tokens_per_query,
        request.max_tokens_per_doc,
        request.max_chunks_per_doc,
        request.overlap_tokens,
    )
    _add(start, json.dumps((FORMAT, model, limits, request.instruction), sort_keys=True, default=str))
    _add(start, request.query)

    def digest_of(text: str) -> str:
        digest = start.copy()
        _add(digest, text)
        return digest.hexdigest()

    return digest_of


def _add(digest: blake2b, part: str) -> None:
    """The length first, so that no two lists of parts are the same bytes."""
    data = part.encode(errors="surrogatepass")
    digest.update(b"%d:" % len(data))
    digest.update(data)


def _pack(pair: PairScore) -> bytes | None:
    """A score's bytes; None for what is not to be remembered."""
    if pair.score is None or pair.error is not None or not math.isfinite(pair.score):
        return None
    flags = _SIMILARITY * (pair.scale is ScoreScale.SIMILARITY) + _TRUNCATED * pair.truncated
    if pair.window is None:
        return _VALUE.pack(pair.score, flags)
    return _VALUE_WITH_WINDOW.pack(pair.score, flags, *pair.window)


def _unpack(value: bytes) -> PairScore | None:
    """The score; None when these are no score's bytes."""
    if len(value) not in (_VALUE.size, _VALUE_WITH_WINDOW.size):
        return None
    score, flags = _VALUE.unpack_from(value)
    window = _VALUE_WITH_WINDOW.unpack(value)[2:] if len(value) > _VALUE.size else None
    scale = ScoreScale.SIMILARITY if flags & _SIMILARITY else ScoreScale.LOGIT
    return PairScore(score, scale, bool(flags & _TRUNCATED), window)
