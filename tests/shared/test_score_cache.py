import asyncio
import struct
from typing import Any

import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st

from shared import score_cache
from shared.contracts import RerankRequest, ScoreScale, ShardScores, Truncation
from shared.keys import service_keys
from shared.models import ModelSpec
from shared.partial_results import PairScore
from shared.score_cache import ScoreReader, ScoreWriter
from shared.store.client import connect, connect_async
from tests.shared.support import (
    MODEL,
    StoreView,
    dead_redis_url,
    make_request,
    make_scores,
    out_of_memory,
    properties,
)

LOGIT, SIMILARITY = ScoreScale.LOGIT, ScoreScale.SIMILARITY
SPEC = ModelSpec(name=MODEL, source="org/model")
REQUEST = make_request("a", "b")
DAY = 86_400.0


@pytest.fixture
def reader(async_client: redis.asyncio.Redis) -> ScoreReader:
    return ScoreReader(async_client)


def writer(
    client: Any, spec: ModelSpec = SPEC, *, dtype: str | None = "float32", seconds: float = DAY, entries: int = 1000
) -> ScoreWriter:
    return ScoreWriter(client, spec, dtype=dtype, seconds=seconds, entries=entries)


async def read(
    reader: ScoreReader, *texts: str, spec: ModelSpec = SPEC, dtype: str | None = "float32", **fields: Any
) -> dict[str, PairScore]:
    return await reader.read(spec, make_request(**fields), texts, dtype=dtype)


class TestCachedScores:
    async def test_only_written_scores_are_read(self, reader: ScoreReader, redis_client: Any) -> None:
        writer(redis_client).write(REQUEST, make_scores(0.25, 0.75))
        assert await read(reader, "c", "b", "a") == {
            "a": PairScore(0.25, SIMILARITY),
            "b": PairScore(0.75, SIMILARITY),
        }

    async def test_scores_of_several_shards_are_written_in_one_command(
        self, reader: ScoreReader, redis_client: Any
    ) -> None:
        cache = writer(redis_client)
        cache.write(make_request("x"), make_scores(0.5))
        redis_client.config_resetstat()
        cache.write_all([(REQUEST, make_scores()), (make_request("a", query="other"), make_scores(0.125))])
        assert redis_client.info("commandstats")["cmdstat_evalsha"]["calls"] == 1
        assert len(await read(reader, "a", "b")) == 2
        assert await read(reader, "a", query="other") == {"a": PairScore(0.125, SIMILARITY)}

    async def test_truncation_and_window_are_cached(self, reader: ScoreReader, redis_client: Any) -> None:
        scores = ShardScores(scores=[-3.5, 1e-300], scale=LOGIT, truncated=[1], windows={1: (10, 100_000)})
        writer(redis_client).write(REQUEST, scores)
        assert await read(reader, "a", "b") == {
            "a": PairScore(-3.5, LOGIT),
            "b": PairScore(1e-300, LOGIT, truncated=True, window=(10, 100_000)),
        }

    async def test_failed_document_is_not_cached(self, reader: ScoreReader, redis_client: Any) -> None:
        scores = ShardScores(scores=[None, 0.5], scale=SIMILARITY, errors={0: "empty", 1: "strange"})
        writer(redis_client).write(REQUEST, scores)
        assert await read(reader, "a", "b") == {}

    @pytest.mark.parametrize("score", [float("nan"), float("inf")])
    async def test_score_that_is_not_finite_is_not_cached(
        self, reader: ScoreReader, redis_client: Any, score: float
    ) -> None:
        writer(redis_client).write(REQUEST, make_scores(score, 0.5))
        assert set(await read(reader, "a", "b")) == {"b"}

    async def test_scores_of_a_listwise_model_are_not_cached(self, reader: ScoreReader, redis_client: Any) -> None:
        spec = SPEC.model_copy(update={"listwise": True})
        writer(redis_client, spec).write(REQUEST, make_scores())
        assert redis_client.keys() == []

    @pytest.mark.parametrize(
        "fields",
        [
            {"query": "another query"},
            {"instruction": "find the law"},
            {"max_tokens_per_query": 8},
            {"max_tokens_per_doc": 8},
            {"max_chunks_per_doc": 2},
            {"overlap_tokens": 8},
            {"max_prompt_tokens": 8},
            {"truncation": Truncation.START},
            {"truncation": Truncation.NONE},
        ],
        ids=lambda fields: next(iter(fields)),
    )
    async def test_score_is_not_found_when_something_it_depends_on_differs(
        self, reader: ScoreReader, redis_client: Any, fields: dict[str, Any]
    ) -> None:
        writer(redis_client).write(REQUEST, make_scores())
        assert await read(reader, "a", "b", **fields) == {}

    @pytest.mark.parametrize("fields", [{"top_n": 1}, {"raw_scores": True}, {"priority": 9}, {"model": "alias"}])
    async def test_score_is_found_when_other_fields_differ(
        self, reader: ScoreReader, redis_client: Any, fields: dict[str, Any]
    ) -> None:
        writer(redis_client).write(REQUEST, make_scores())
        assert len(await read(reader, "a", "b", **fields)) == 2

    @pytest.mark.parametrize(
        "change",
        [
            {"source": "org/other"},
            {"revision": "v2"},
            {"engine": "lexical"},
            {"engine_args": {"dtype": "bfloat16"}},
            {"score_template": "qwen3"},
            {"allow_special_tokens": True},
        ],
        ids=lambda change: next(iter(change)),
    )
    async def test_score_is_not_found_for_another_model(
        self, reader: ScoreReader, redis_client: Any, change: dict[str, object]
    ) -> None:
        writer(redis_client).write(REQUEST, make_scores())
        assert await read(reader, "a", "b", spec=SPEC.model_copy(update=change)) == {}

    async def test_score_of_another_precision_is_not_found(self, reader: ScoreReader, redis_client: Any) -> None:
        for dtype, score in (("float32", 0.5), ("bfloat16", 0.5039)):
            writer(redis_client, dtype=dtype).write(make_request("a"), make_scores(score))
        assert await read(reader, "a") == {"a": PairScore(0.5, SIMILARITY)}
        assert await read(reader, "a", dtype="bfloat16") == {"a": PairScore(0.5039, SIMILARITY)}
        assert await read(reader, "a", dtype=None) == {}

    async def test_model_name_matters_only_when_it_is_the_source(self, reader: ScoreReader, redis_client: Any) -> None:
        writer(redis_client).write(REQUEST, make_scores())
        assert len(await read(reader, "a", "b", spec=SPEC.model_copy(update={"name": "other"}))) == 2
        assert len(await read(reader, "a", "b", spec=ModelSpec(name="org/model"))) == 2
        assert await read(reader, "a", "b", spec=ModelSpec(name="other")) == {}

    async def test_boundary_between_query_and_text_matters(self, reader: ScoreReader, redis_client: Any) -> None:
        writer(redis_client).write(make_request("bc", query="a"), make_scores(0.5))
        assert await read(reader, "c", query="ab") == {}
        assert await read(reader, "", query="abc") == {}
        assert len(await read(reader, "bc", query="a")) == 1


@properties
@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(ScoreScale),
    st.booleans(),
    st.none() | st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
)
def test_score_is_stored_exactly(
    score: float, scale: ScoreScale, truncated: bool, window: tuple[int, int] | None
) -> None:
    pair = PairScore(score, scale, truncated, window)
    packed = score_cache._pack(pair)
    assert packed is not None
    assert repr(score_cache._unpack(packed)) == repr(pair)


class TestLimits:
    async def test_score_expires_after_its_lifetime(
        self, reader: ScoreReader, redis_client: Any, store: StoreView
    ) -> None:
        writer(redis_client, seconds=0.15).write(REQUEST, make_scores())
        assert len(await read(reader, "a", "b")) == 2
        await asyncio.sleep(0.2)
        assert await read(reader, "a", "b") == {}
        assert redis_client.keys() == []

    async def test_every_key_expires(self, redis_client: Any, store: StoreView) -> None:
        writer(redis_client, seconds=100).write(REQUEST, make_scores())
        names = redis_client.keys()
        assert len(names) == 3
        assert all(90 < store.remaining_seconds(name) <= 100 for name in names)

    async def test_oldest_scores_are_evicted(self, reader: ScoreReader, redis_client: Any) -> None:
        cache = writer(redis_client, entries=3)
        for text in "abcde":
            cache.write(make_request(text), make_scores(0.5))
            # Scores written within the same millisecond have the same age.
            await asyncio.sleep(0.002)
        assert sorted(await read(reader, *"abcde")) == ["c", "d", "e"]
        assert redis_client.zcard(service_keys.CACHED_SCORES) == 3
        assert len(redis_client.keys(service_keys.cached_score("") + "*")) == 3

    async def test_writing_a_score_again_renews_it(self, reader: ScoreReader, redis_client: Any) -> None:
        cache = writer(redis_client, entries=2)
        for text in "abac":
            cache.write(make_request(text), make_scores(0.5))
            await asyncio.sleep(0.002)
        assert sorted(await read(reader, *"abc")) == ["a", "c"]

    async def test_expired_scores_leave_the_index_with_the_next_write(self, redis_client: Any) -> None:
        writer(redis_client).write(REQUEST, make_scores())
        await asyncio.sleep(0.06)
        writer(redis_client, seconds=0.05).write(make_request("c"), make_scores(0.5))
        assert redis_client.zcard(service_keys.CACHED_SCORES) == 1

    async def test_lower_limit_is_reached_gradually(self, redis_client: Any) -> None:
        """Each write evicts at most twice as many scores as it adds, so that it does not block Redis for long."""
        texts = [str(number) for number in range(20)]
        writer(redis_client).write(make_request(*texts), make_scores(*[0.5] * 20))
        left = []
        for text in ("x", "y"):
            writer(redis_client, entries=5).write(make_request(text), make_scores(0.5))
            left.append(redis_client.zcard(service_keys.CACHED_SCORES))
        assert left == [19, 18]

    async def test_many_scores_are_written_and_read_in_several_commands(
        self, reader: ScoreReader, redis_client: Any
    ) -> None:
        texts = [str(number) for number in range(1201)]
        scores = ShardScores(scores=[float(number) for number in range(1201)], scale=LOGIT)
        writer(redis_client, entries=10_000).write(make_request(*texts), scores)
        found = await read(reader, *texts)
        assert [found[text].score for text in texts] == scores.scores


class TestFaults:
    def test_write_ignores_unreachable_redis(self) -> None:
        with connect(dead_redis_url()) as client:
            writer(client).write(REQUEST, make_scores())

    def test_write_ignores_redis_that_is_out_of_memory(self, redis_client: Any) -> None:
        with out_of_memory(redis_client):
            writer(redis_client).write(REQUEST, make_scores())
        assert redis_client.keys() == []

    async def test_read_from_unreachable_redis_returns_nothing(self) -> None:
        client = connect_async(dead_redis_url())
        assert await read(ScoreReader(client), "a", "b") == {}
        await client.aclose()

    async def test_read_works_when_redis_is_out_of_memory(self, reader: ScoreReader, redis_client: Any) -> None:
        writer(redis_client).write(REQUEST, make_scores())
        with out_of_memory(redis_client):
            assert len(await read(reader, "a", "b")) == 2

    @pytest.mark.parametrize("value", [b"", b"garbage", struct.pack("<d", 0.5), b"x" * 18])
    async def test_damaged_value_is_ignored(self, reader: ScoreReader, redis_client: Any, value: bytes) -> None:
        writer(redis_client).write(REQUEST, make_scores())
        for key in redis_client.keys(service_keys.cached_score("") + "*"):
            redis_client.set(key, value)
        assert await read(reader, "a", "b") == {}


@pytest.mark.parametrize(
    "texts",
    [
        [f"{number} " + "word " * 20 for number in range(10_000)],
        [f"{number} " + "word " * 20_000 for number in range(100)],
        ["word " * 2_000_000],
    ],
    ids=["many documents", "long documents", "one very long document"],
)
async def test_event_loop_stays_responsive_while_a_large_request_is_hashed(texts: list[str]) -> None:
    """Counts loop iterations instead of measuring time, because a busy machine is slow for other reasons."""
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    request = RerankRequest(query="q")
    other = asyncio.create_task(count_turns())
    keys = await score_cache._cache_keys(SPEC, None, request, texts)
    other.cancel()
    assert len(set(keys)) == len(texts)
    assert turns >= 5
