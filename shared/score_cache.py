"""Cache of pair scores in Redis. The API reads it, and sends cached pairs to no worker; the workers write it.

The key of a score is a digest of everything it depends on: the model's source and settings (not its name), the
precision that the worker computed in, the limits, the instruction, the query and the document's text. Owns this digest
and the stored bytes. A failed read is a cache miss and a failed write is ignored. The weights at a model's source must
not change in place: cached scores would be stale.
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
from shared.partial_results import PairScore, pair_scores
from shared.store.scripts import script_source

logger = logging.getLogger(__name__)

FORMAT = 2
"""Increment this when the content of digests or values changes, so that older entries are no longer found."""
_DIGEST_BYTES = 20
_SCORES_PER_COMMAND = 500
"""Limits how long one command blocks Redis."""
_CHARACTERS_PER_SLICE = 1_000_000
"""Characters hashed before the event loop runs other tasks: about a millisecond."""
_CHARACTERS_PER_TEXT = 1000
"""The fixed cost of hashing one text, in characters."""

_VALUE = struct.Struct("<dB")
_VALUE_WITH_WINDOW = struct.Struct("<dBII")
_SIMILARITY, _TRUNCATED = 1, 2


class ScoreReader:
    """The API's side of the cache (asyncio)."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def read(
        self, spec: ModelSpec, request: RerankRequest, texts: Sequence[str], *, dtype: str | None
    ) -> dict[str, PairScore]:
        """Cached scores of distinct `texts` under the request's query, by text. Redis errors count as misses.

        `dtype` is the precision of the pool's workers, None for an engine without one.
        """
        keys = await _cache_keys(spec, dtype, request, texts)
        values: list[Any] = []
        try:
            for start in range(0, len(keys), _SCORES_PER_COMMAND):
                values += await self._client.mget(keys[start : start + _SCORES_PER_COMMAND])
        except (RedisError, OSError) as error:
            logger.debug("cannot read cached scores", extra={"error": error})
        # There are fewer values than texts when Redis failed between two commands.
        found = zip(texts, values, strict=False)
        return {text: score for text, value in found if value is not None and (score := _unpack(value)) is not None}


class ScoreWriter:
    """The worker's side of the cache, for one model. Blocking; threads may share it."""

    def __init__(
        self, client: redis.Redis, spec: ModelSpec, *, dtype: str | None, seconds: float, entries: int
    ) -> None:
        """`dtype` is the worker's precision. A score expires after `seconds`; the newest `entries` scores are kept."""
        self._spec = spec
        self._dtype = dtype
        self._limits = (int(seconds * 1000), entries)
        self._cache_scores = client.register_script(script_source("cache_scores"))

    def write(self, request: RerankRequest, scores: ShardScores) -> None:
        """Cache the scores of one shard, whose documents are those of `request`; see `write_all`."""
        self.write_all([(request, scores)])

    def write_all(self, shards: Iterable[tuple[RerankRequest, ShardScores]]) -> None:
        """Cache the scores of several shards, 500 per round trip. Redis errors are logged and ignored.

        Failed documents, requests without `use_cache` and the scores of listwise models are not cached.
        """
        if self._spec.listwise:
            return
        entries = [part for request, scores in shards if request.use_cache for part in self._entries(request, scores)]
        try:
            for start in range(0, len(entries), 2 * _SCORES_PER_COMMAND):
                batch = entries[start : start + 2 * _SCORES_PER_COMMAND]
                args = (service_keys.cached_score(""), *self._limits, *batch)
                self._cache_scores(keys=[service_keys.CACHED_SCORES], args=args)
        except (RedisError, OSError) as error:
            logger.debug("cannot cache scores", extra={"error": error})

    def _entries(self, request: RerankRequest, scores: ShardScores) -> Iterator[str | bytes]:
        """Yields a digest and a value in turn, for each pair that can be cached."""
        digest_of = _digest_function(self._spec, self._dtype, request)
        for document, pair in zip(request.documents, pair_scores(scores), strict=False):
            if (value := _pack(pair)) is not None:
                yield digest_of(document.text)
                yield value


async def _cache_keys(spec: ModelSpec, dtype: str | None, request: RerankRequest, texts: Sequence[str]) -> list[str]:
    """The Redis key of each text's score. Lets other tasks run while it hashes many or long texts."""
    digest_of = _digest_function(spec, dtype, request)
    keys: list[str] = []
    hashed = 0
    for text in texts:
        if hashed > _CHARACTERS_PER_SLICE:
            await asyncio.sleep(0)
            hashed = 0
        hashed += _CHARACTERS_PER_TEXT + len(text)
        is_short = len(text) < _CHARACTERS_PER_SLICE
        digest = digest_of(text) if is_short else await asyncio.to_thread(digest_of, text)
        keys.append(service_keys.cached_score(digest))
    return keys


def _digest_function(spec: ModelSpec, dtype: str | None, request: RerankRequest) -> Callable[[str], str]:
    """A function from a document's text to its digest, for this model, precision and request."""
    common = blake2b(digest_size=_DIGEST_BYTES)
    model = (
        spec.source or spec.name,
        spec.revision,
        spec.engine,
        spec.engine_args,
        spec.score_template,
        spec.allow_special_tokens,
        dtype,
    )
    limits = (
        request.max_tokens_per_query,
        request.max_tokens_per_doc,
        request.max_chunks_per_doc,
        request.overlap_tokens,
        request.max_prompt_tokens,
        request.truncation,
    )
    _update(common, json.dumps((FORMAT, model, limits, request.instruction), sort_keys=True, default=str))
    _update(common, request.query)

    def digest_of(text: str) -> str:
        digest = common.copy()
        _update(digest, text)
        return digest.hexdigest()

    return digest_of


def _update(digest: blake2b, part: str) -> None:
    # The length prefix makes different lists of parts different bytes.
    data = part.encode(errors="surrogatepass")
    digest.update(b"%d:" % len(data))
    digest.update(data)


def _pack(pair: PairScore) -> bytes | None:
    """The bytes to store; None for an outcome that is not cached."""
    if pair.score is None or pair.error is not None or not math.isfinite(pair.score):
        return None
    flags = _SIMILARITY * (pair.scale is ScoreScale.SIMILARITY) + _TRUNCATED * pair.truncated
    if pair.window is None:
        return _VALUE.pack(pair.score, flags)
    return _VALUE_WITH_WINDOW.pack(pair.score, flags, *pair.window)


def _unpack(value: bytes) -> PairScore | None:
    """The stored outcome; None when the bytes have another format."""
    if len(value) not in (_VALUE.size, _VALUE_WITH_WINDOW.size):
        return None
    score, flags = _VALUE.unpack_from(value)
    window = _VALUE_WITH_WINDOW.unpack(value)[2:] if len(value) > _VALUE.size else None
    scale = ScoreScale.SIMILARITY if flags & _SIMILARITY else ScoreScale.LOGIT
    return PairScore(score, scale, bool(flags & _TRUNCATED), window)
