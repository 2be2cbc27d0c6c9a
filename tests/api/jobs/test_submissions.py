from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import redis.asyncio

from api.jobs.submissions import Limits, SubmissionBuilder
from api.pool_monitor import PoolMonitor
from shared.contracts import Document, ScoreScale, WorkClass
from shared.errors import InvalidRequest, ModelUnavailable
from shared.ledger.job_ledger import Submission
from shared.models import ModelRegistry, ModelSpec
from shared.partial_results import KnownScores, PairScore
from shared.pools.heartbeats import HeartbeatWriter, WorkerState
from shared.queue.celery_app import make_celery
from shared.queue.messages import MessageBuilder
from shared.score_cache import ScoreReader, ScoreWriter
from shared.store.client import connect_async
from tests.shared.support import MODEL, OWNER, dead_redis_url, make_request, make_scores

LIMITS = Limits(max_documents=9, wait_seconds=10.0, job_deadline_seconds=60.0, shard_tokens=16_384, batch_window=32)
SPEC = ModelSpec(name=MODEL)
TEMPLATED = ModelSpec(name="templated", score_template="qwen3")
LISTWISE = ModelSpec(name="listwise", listwise=True)
MODELS = ModelRegistry([SPEC, TEMPLATED, LISTWISE])
HALF = PairScore(0.5, ScoreScale.SIMILARITY)
Maker = Callable[..., SubmissionBuilder]


@pytest.fixture
async def pools(async_client: redis.asyncio.Redis) -> PoolMonitor:
    watch = PoolMonitor(async_client, MODELS.specs)
    await watch.refresh()
    return watch


@pytest.fixture
def make(async_client: redis.asyncio.Redis, pools: PoolMonitor, redis_url: str) -> Maker:
    def make(*, limits: Limits = LIMITS, cached: bool = True, store: Any = None) -> SubmissionBuilder:
        scores = ScoreReader(store or async_client) if cached else None
        messages = MessageBuilder(make_celery(redis_url))
        return SubmissionBuilder(pools=pools, models=MODELS, messages=messages, limits=limits, scores=scores)

    return make


@pytest.fixture
def remember(redis_client: Any) -> Callable[..., None]:
    """Somebody has asked for these texts before, and each scored 0.5."""

    def remember(*texts: str, spec: ModelSpec = SPEC, **fields: object) -> None:
        cache = ScoreWriter(redis_client, spec, seconds=60, entries=1000)
        cache.write(make_request(*texts, **fields), make_scores(*[0.5] * len(texts)))

    return remember


async def prepare(preparation: SubmissionBuilder, *texts: str, **fields: object) -> Submission:
    return await preparation.prepare(make_request(*texts, **fields), "superset", OWNER, WorkClass.INTERACTIVE, None)


def pairs(submission: Submission) -> list[int]:
    """How many documents each shard has."""
    return [size.pairs for size in submission.sizes]


def commands(client: Any) -> int:
    """How many commands Redis has run, this one not counted."""
    return int(client.info("stats")["total_commands_processed"])


class TestKnownScores:
    async def test_nothing_is_known_of_what_was_never_asked(self, make: Maker) -> None:
        submission = await prepare(make(), "a", "b")
        assert (submission.rest, pairs(submission), len(submission.messages)) == (None, [2], 1)

    async def test_what_is_known_goes_to_no_worker(self, make: Maker, remember: Callable[..., None]) -> None:
        remember("b", "x")
        submission = await prepare(make(), "a", "b", "c")
        assert (submission.rest, pairs(submission)) == (KnownScores({1: HALF}), [2])
        assert [document.text for document in submission.request.documents] == ["a", "b", "c"]

    async def test_where_all_is_known_there_is_no_shard_and_no_doorbell(
        self, make: Maker, remember: Callable[..., None]
    ) -> None:
        remember("a", "b")
        submission = await prepare(make(), "b", "a", "b")
        assert (submission.rest, submission.sizes, submission.messages) == (
            KnownScores(dict.fromkeys(range(3), HALF)),
            [],
            [],
        )

    async def test_an_alias_knows_what_the_model_knows(self, make: Maker, remember: Callable[..., None]) -> None:
        remember("a", model="anything")
        assert (await prepare(make(), "a", model=MODEL)).sizes == []

    async def test_of_another_model_nothing_is_known(self, make: Maker, remember: Callable[..., None]) -> None:
        remember("a")
        assert pairs(await prepare(make(), "a", model="templated")) == [1]

    async def test_only_what_is_to_be_scored_fills_the_shards(self, make: Maker, remember: Callable[..., None]) -> None:
        remember("a", "b", "c")
        preparation = make(limits=replace(LIMITS, shard_tokens=1))
        assert pairs(await prepare(preparation, *"abcdef")) == [1, 1, 1]

    async def test_a_store_that_fails_knows_nothing(self, make: Maker, remember: Callable[..., None]) -> None:
        remember("a")
        away = connect_async(dead_redis_url())
        assert pairs(await prepare(make(store=away), "a")) == [1]
        await away.aclose()

    async def test_a_store_that_is_known_to_be_away_is_not_asked(
        self, make: Maker, pools: PoolMonitor, remember: Callable[..., None]
    ) -> None:
        remember("a")
        pools.store_reachable = False
        assert pairs(await prepare(make(), "a")) == [1]

    async def test_one_command_finds_them_all(
        self, make: Maker, remember: Callable[..., None], redis_client: Any
    ) -> None:
        remember("a", "b", "c")
        preparation = make()
        await prepare(preparation, "warm")
        before = commands(redis_client)
        await prepare(preparation, *"abcdef")
        assert commands(redis_client) - before == 2

    async def test_switched_off_none_is_read(
        self, make: Maker, remember: Callable[..., None], redis_client: Any
    ) -> None:
        remember("a", "b")
        preparation = make(cached=False)
        before = commands(redis_client)
        submission = await prepare(preparation, "a", "b", "a")
        assert commands(redis_client) - before == 1
        assert (submission.rest, pairs(submission)) == (KnownScores({}, {2: 0}), [2])


class TestRepeats:
    @pytest.mark.parametrize("cached", [True, False])
    async def test_equal_documents_are_scored_once(self, make: Maker, cached: bool) -> None:
        submission = await prepare(make(cached=cached), "a", "b", "a", "a")
        assert (submission.rest, pairs(submission)) == (KnownScores({}, {2: 0, 3: 0}), [2])


class TestListwise:
    async def test_what_depends_on_its_neighbours_is_neither_cut_nor_known_nor_set_apart(
        self, make: Maker, remember: Callable[..., None]
    ) -> None:
        remember("a", "b", spec=LISTWISE.model_copy(update={"listwise": False}))
        preparation = make(limits=replace(LIMITS, shard_tokens=1))
        submission = await prepare(preparation, "a", "b", "a", model="listwise")
        assert (submission.rest, pairs(submission)) == (None, [3])


class TestInstructions:
    async def test_a_model_with_a_template_takes_one(self, make: Maker) -> None:
        submission = await prepare(make(), "a", model="templated", instruction="find the law")
        assert submission.request.instruction == "find the law"

    async def test_a_model_without_one_refuses_it(self, make: Maker) -> None:
        with pytest.raises(InvalidRequest, match=f"^instruction: model '{MODEL}' has no score template") as caught:
            await prepare(make(), "a", instruction="find the law")
        assert caught.value.param == "instruction"


class TestAPoolThatFailedToStart:
    @pytest.fixture(autouse=True)
    async def _down(self, pools: PoolMonitor, redis_client: Any) -> None:
        HeartbeatWriter(redis_client, MODEL, "w1").beat(WorkerState.FAILED, "the weights are not there")
        await pools.refresh()

    async def test_what_needs_a_worker_is_refused(self, make: Maker, remember: Callable[..., None]) -> None:
        remember("a")
        with pytest.raises(ModelUnavailable, match="the weights are not there"):
            await prepare(make(), "a", "b")

    async def test_what_needs_none_is_taken(self, make: Maker, remember: Callable[..., None]) -> None:
        remember("a")
        assert (await prepare(make(), "a")).sizes == []


def asked(*queries: str) -> list[Document]:
    return [Document(text=f"text {place}", query=query) for place, query in enumerate(queries)]


class TestQueriesOfTheirOwn:
    async def test_a_shard_has_one_query(self, make: Maker) -> None:
        submission = await prepare(make(), documents=asked("a", "a", "b", "a"))
        assert (pairs(submission), submission.rest, len(submission.messages)) == ([2, 1, 1], None, 3)

    async def test_a_run_is_cut_where_it_is_too_large(self, make: Maker) -> None:
        preparation = make(limits=replace(LIMITS, shard_tokens=1))
        assert pairs(await prepare(preparation, documents=asked("a", "a", "b"))) == [1, 1, 1]

    async def test_of_a_listwise_model_a_run_is_never_cut(self, make: Maker) -> None:
        preparation = make(limits=replace(LIMITS, shard_tokens=1))
        submission = await prepare(preparation, documents=asked("a", "a", "b"), model=LISTWISE.name)
        assert pairs(submission) == [2, 1]

    async def test_what_is_known_of_the_requests_query_is_not_known_of_theirs(
        self, make: Maker, remember: Callable[..., None]
    ) -> None:
        remember("text 0", "text 1")
        submission = await prepare(make(), documents=asked("a", "b"))
        assert (pairs(submission), submission.rest) == ([1, 1], None)

    async def test_there_are_not_more_of_them_than_the_limit(
        self, make: Maker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("api.jobs.submissions.MAX_QUERIES", 2)
        assert pairs(await prepare(make(), documents=asked("a", "a", "b"))) == [2, 1]
        with pytest.raises(InvalidRequest, match="queries: at most 2 different ones in one request"):
            await prepare(make(), documents=asked("a", "b", "c"))
