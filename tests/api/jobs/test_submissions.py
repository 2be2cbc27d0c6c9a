from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import redis.asyncio

from api.jobs.admission import Admission, AdmissionLimits
from api.jobs.submissions import Limits, SubmissionBuilder
from api.pool_monitor import PoolMonitor
from shared.contracts import Document, NumberedDocument, ScoreScale, Truncation, WorkClass
from shared.errors import InvalidRequest, ModelUnavailable, Overloaded
from shared.ledger.submission import JobOptions, Submission
from shared.models import ModelRegistry, ModelSpec
from shared.partial_results import KnownScores, PairScore
from shared.pools.heartbeats import HeartbeatWriter, WorkerState
from shared.queue.celery_app import make_celery
from shared.queue.messages import MessageBuilder
from shared.score_cache import ScoreReader, ScoreWriter
from shared.store.client import connect_async
from tests.shared.support import MODEL, OWNER, dead_redis_url, make_request, make_scores

LIMITS = Limits(
    max_documents=9,
    wait_seconds=10.0,
    job_deadline_seconds=60.0,
    shard_tokens=16_384,
    batch_window=32,
    max_windows=50_000,
)
ADMISSION_LIMITS = AdmissionLimits(max_pending_tokens=1000, max_pending_jobs=10, max_waiting=10)
SPEC = ModelSpec(name=MODEL)
TEMPLATED = ModelSpec(name="templated", score_template="qwen3")
LISTWISE = ModelSpec(name="listwise", listwise=True)
MODELS = ModelRegistry([SPEC, TEMPLATED, LISTWISE])
HALF = PairScore(0.5, ScoreScale.SIMILARITY)
BuilderMaker = Callable[..., SubmissionBuilder]


@pytest.fixture
async def pools(async_client: redis.asyncio.Redis) -> PoolMonitor:
    monitor = PoolMonitor(async_client, MODELS.specs)
    await monitor.refresh()
    return monitor


@pytest.fixture
def make(async_client: redis.asyncio.Redis, pools: PoolMonitor, redis_url: str) -> BuilderMaker:
    def make(*, limits: Limits = LIMITS, cached: bool = True, store: Any = None) -> SubmissionBuilder:
        scores = ScoreReader(store or async_client) if cached else None
        messages = MessageBuilder(make_celery(redis_url))
        admission = Admission(pools, ADMISSION_LIMITS)
        return SubmissionBuilder(
            pools=pools, models=MODELS, messages=messages, limits=limits, admission=admission, scores=scores
        )

    return make


@pytest.fixture
def cache_scores(redis_client: Any) -> Callable[..., None]:
    """Stores a score of 0.5 for each text in the score cache."""

    def cache_scores(*texts: str, spec: ModelSpec = SPEC, dtype: str | None = None, **fields: object) -> None:
        cache = ScoreWriter(redis_client, spec, dtype=dtype, seconds=60, entries=1000)
        cache.write(make_request(*texts, **fields), make_scores(*[0.5] * len(texts)))

    return cache_scores


async def build(builder: SubmissionBuilder, *texts: str, **fields: object) -> Submission:
    return await builder.build(make_request(*texts, **fields), "superset", OWNER, WorkClass.INTERACTIVE, None)


def shard_pairs(submission: Submission) -> list[int]:
    """The number of documents in each shard."""
    return [size.pairs for size in submission.sizes]


def command_count(client: Any) -> int:
    """The number of commands that Redis has run, without this one."""
    return int(client.info("stats")["total_commands_processed"])


class TestKnownScores:
    async def test_new_texts_have_no_known_scores(self, make: BuilderMaker) -> None:
        submission = await build(make(), "a", "b")
        assert (submission.known_scores, shard_pairs(submission), len(submission.messages)) == (None, [2], 1)

    async def test_known_scores_are_not_scored_again(
        self, make: BuilderMaker, cache_scores: Callable[..., None]
    ) -> None:
        cache_scores("b", "x")
        submission = await build(make(), "a", "b", "c")
        assert (submission.known_scores, shard_pairs(submission)) == (KnownScores({1: HALF}), [2])
        assert [document.text for document in submission.request.documents] == ["a", "b", "c"]

    async def test_only_scores_of_the_pools_precision_are_known(
        self, make: BuilderMaker, cache_scores: Callable[..., None], pools: PoolMonitor, redis_client: Any
    ) -> None:
        cache_scores("a", dtype="float32")
        cache_scores("a", "b", dtype="bfloat16")
        HeartbeatWriter(redis_client, MODEL, "w1").beat(WorkerState.READY, dtype="bfloat16")
        await pools.refresh()
        assert shard_pairs(await build(make(), "a", "b")) == []
        HeartbeatWriter(redis_client, MODEL, "w1").beat(WorkerState.READY, dtype="float32")
        await pools.refresh()
        assert shard_pairs(await build(make(), "a", "b")) == [1]

    async def test_fully_known_request_has_no_shard_and_no_message(
        self, make: BuilderMaker, cache_scores: Callable[..., None]
    ) -> None:
        cache_scores("a", "b")
        submission = await build(make(), "b", "a", "b")
        assert (submission.known_scores, submission.sizes, submission.messages) == (
            KnownScores(dict.fromkeys(range(3), HALF)),
            [],
            [],
        )

    async def test_alias_shares_the_models_scores(self, make: BuilderMaker, cache_scores: Callable[..., None]) -> None:
        cache_scores("a", model="anything")
        assert (await build(make(), "a", model=MODEL)).sizes == []

    async def test_models_do_not_share_scores(self, make: BuilderMaker, cache_scores: Callable[..., None]) -> None:
        cache_scores("a")
        assert shard_pairs(await build(make(), "a", model="templated")) == [1]

    async def test_shards_hold_only_pairs_without_a_score(
        self, make: BuilderMaker, cache_scores: Callable[..., None]
    ) -> None:
        cache_scores("a", "b", "c")
        builder = make(limits=replace(LIMITS, shard_tokens=1))
        assert shard_pairs(await build(builder, *"abcdef")) == [1, 1, 1]

    async def test_unreachable_cache_has_no_known_scores(
        self, make: BuilderMaker, cache_scores: Callable[..., None]
    ) -> None:
        cache_scores("a")
        unreachable = connect_async(dead_redis_url())
        assert shard_pairs(await build(make(store=unreachable), "a")) == [1]
        await unreachable.aclose()

    async def test_cache_is_not_read_while_redis_is_unreachable(
        self, make: BuilderMaker, pools: PoolMonitor, cache_scores: Callable[..., None]
    ) -> None:
        cache_scores("a")
        pools.store_reachable = False
        assert shard_pairs(await build(make(), "a")) == [1]

    async def test_cache_is_read_with_one_command(
        self, make: BuilderMaker, cache_scores: Callable[..., None], redis_client: Any
    ) -> None:
        cache_scores("a", "b", "c")
        builder = make()
        await build(builder, "warm")
        before = command_count(redis_client)
        await build(builder, *"abcdef")
        assert command_count(redis_client) - before == 2

    async def test_disabled_cache_is_not_read(
        self, make: BuilderMaker, cache_scores: Callable[..., None], redis_client: Any
    ) -> None:
        cache_scores("a", "b")
        builder = make(cached=False)
        before = command_count(redis_client)
        submission = await build(builder, "a", "b", "a")
        assert command_count(redis_client) - before == 1
        assert (submission.known_scores, shard_pairs(submission)) == (KnownScores({}, {2: 0}), [2])


class TestRepeats:
    @pytest.mark.parametrize("cached", [True, False])
    async def test_equal_documents_are_scored_once(self, make: BuilderMaker, cached: bool) -> None:
        submission = await build(make(cached=cached), "a", "b", "a", "a")
        assert (submission.known_scores, shard_pairs(submission)) == (KnownScores({}, {2: 0, 3: 0}), [2])


class TestListwise:
    async def test_listwise_request_is_one_shard_with_all_documents(
        self, make: BuilderMaker, cache_scores: Callable[..., None]
    ) -> None:
        cache_scores("a", "b", spec=LISTWISE.model_copy(update={"listwise": False}))
        builder = make(limits=replace(LIMITS, shard_tokens=1))
        submission = await build(builder, "a", "b", "a", model="listwise")
        assert (submission.known_scores, shard_pairs(submission)) == (None, [3])


class TestInstructions:
    async def test_model_with_a_template_accepts_an_instruction(self, make: BuilderMaker) -> None:
        submission = await build(make(), "a", model="templated", instruction="find the law")
        assert submission.request.instruction == "find the law"

    async def test_model_without_a_template_rejects_an_instruction(self, make: BuilderMaker) -> None:
        with pytest.raises(InvalidRequest, match=f"^instruction: model '{MODEL}' has no score template") as caught:
            await build(make(), "a", instruction="find the law")
        assert caught.value.param == "instruction"


class TestWindows:
    async def test_shards_are_cut_by_what_the_engine_reads(self, make: BuilderMaker) -> None:
        builder = make(limits=replace(LIMITS, shard_tokens=2000))
        texts = [f"{number} " + "word " * 800 for number in range(3)]
        assert shard_pairs(await build(builder, *texts, max_tokens_per_doc=100)) == [3]
        assert shard_pairs(await build(builder, *texts, max_tokens_per_doc=100, max_chunks_per_doc=99)) == [1, 1, 1]

    async def test_too_many_windows_are_rejected(self, make: BuilderMaker) -> None:
        builder = make(limits=replace(LIMITS, max_windows=20))
        await build(builder, "word " * 200, max_tokens_per_doc=100, max_chunks_per_doc=99)
        with pytest.raises(InvalidRequest, match="max_chunks_per_doc: at most 20 windows") as raised:
            await build(builder, "word " * 4000, max_tokens_per_doc=100, max_chunks_per_doc=99)
        assert raised.value.param == "max_chunks_per_doc"

    async def test_windows_of_all_queries_count(self, make: BuilderMaker) -> None:
        documents = [Document(text="word " * 200, query=query) for query in ("a", "b", "c")]
        windows = {"max_tokens_per_doc": 100, "max_chunks_per_doc": 99}
        await build(make(limits=replace(LIMITS, max_windows=9)), documents=documents, **windows)
        with pytest.raises(InvalidRequest, match="at most 8 windows"):
            await build(make(limits=replace(LIMITS, max_windows=8)), documents=documents, **windows)


class TestTruncation:
    async def test_documents_that_must_not_be_truncated_have_their_positions(
        self, make: BuilderMaker, cache_scores: Callable[..., None]
    ) -> None:
        cache_scores("known", truncation=Truncation.NONE)
        builder = make(limits=replace(LIMITS, shard_tokens=1))
        submission = await build(builder, "a", "known", "a", "b", truncation=Truncation.NONE)
        assert submission.encode_shards() == [b'[{"text":"a","position":0}]', b'[{"text":"b","position":3}]']
        assert all(isinstance(document, NumberedDocument) for document in submission.request.documents)

    async def test_other_documents_have_none(self, make: BuilderMaker) -> None:
        submission = await build(make(), "a", truncation=Truncation.START)
        assert submission.encode_shards() == [b'[{"text":"a"}]']

    async def test_the_limit_of_a_prompt_bounds_the_estimate(self, make: BuilderMaker) -> None:
        (size,) = (await build(make(), "word " * 400, max_prompt_tokens=100)).sizes
        (whole,) = (await build(make(), "word " * 400)).sizes
        assert 100 <= size.tokens < 150 < whole.tokens


class TestAdmission:
    async def test_a_submission_has_the_limits_of_its_pool(self, make: BuilderMaker) -> None:
        limits = (await build(make(), "one")).limits
        assert (limits.tokens, limits.jobs, limits.tokens_ahead) == (1000, 10, None)

    async def test_a_full_store_refuses_requests_that_need_a_worker(
        self, make: BuilderMaker, pools: PoolMonitor, cache_scores: Callable[..., None]
    ) -> None:
        cache_scores("known")
        pools.store_memory_share = 0.96
        with pytest.raises(Overloaded, match="the job store is almost full"):
            await build(make(), "new")
        assert (await build(make(), "known")).sizes == []


class TestFailedPool:
    @pytest.fixture(autouse=True)
    async def _down(self, pools: PoolMonitor, redis_client: Any) -> None:
        HeartbeatWriter(redis_client, MODEL, "w1").beat(WorkerState.FAILED, "the weights do not exist")
        await pools.refresh()

    async def test_request_that_needs_a_worker_is_rejected(
        self, make: BuilderMaker, cache_scores: Callable[..., None]
    ) -> None:
        cache_scores("a")
        with pytest.raises(ModelUnavailable, match="the weights do not exist"):
            await build(make(), "a", "b")

    async def test_request_that_needs_no_worker_is_accepted(
        self, make: BuilderMaker, cache_scores: Callable[..., None]
    ) -> None:
        cache_scores("a")
        assert (await build(make(), "a")).sizes == []


def documents_with_queries(*queries: str) -> list[Document]:
    return [Document(text=f"text {position}", query=query) for position, query in enumerate(queries)]


class TestQueriesPerDocument:
    async def test_shard_has_one_query(self, make: BuilderMaker) -> None:
        submission = await build(make(), documents=documents_with_queries("a", "a", "b", "a"))
        assert (shard_pairs(submission), submission.known_scores, len(submission.messages)) == ([2, 1, 1], None, 3)

    async def test_documents_with_the_same_query_are_cut_by_size(self, make: BuilderMaker) -> None:
        builder = make(limits=replace(LIMITS, shard_tokens=1))
        assert shard_pairs(await build(builder, documents=documents_with_queries("a", "a", "b"))) == [1, 1, 1]

    async def test_listwise_documents_with_the_same_query_are_one_shard(self, make: BuilderMaker) -> None:
        builder = make(limits=replace(LIMITS, shard_tokens=1))
        submission = await build(builder, documents=documents_with_queries("a", "a", "b"), model=LISTWISE.name)
        assert shard_pairs(submission) == [2, 1]

    async def test_scores_of_the_requests_query_are_not_used(
        self, make: BuilderMaker, cache_scores: Callable[..., None]
    ) -> None:
        cache_scores("text 0", "text 1")
        submission = await build(make(), documents=documents_with_queries("a", "b"))
        assert (shard_pairs(submission), submission.known_scores) == ([1, 1], None)

    async def test_too_many_queries_are_rejected(self, make: BuilderMaker, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("api.jobs.submissions.MAX_QUERIES", 2)
        assert shard_pairs(await build(make(), documents=documents_with_queries("a", "a", "b"))) == [2, 1]
        with pytest.raises(InvalidRequest, match="queries: at most 2 different queries in one request"):
            await build(make(), documents=documents_with_queries("a", "b", "c"))


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "seconds"),
        [
            (JobOptions(), 60.0),
            (JobOptions(deadline_seconds=5.0), 5.0),
            (JobOptions(deadline_seconds=500.0), 60.0),
            (JobOptions(kept_seconds=7.0), 7.0),
            (JobOptions(deadline_seconds=5.0, kept_seconds=7.0), 5.0),
        ],
    )
    async def test_a_caller_shortens_the_deadline_and_cannot_extend_it(
        self, make: BuilderMaker, options: JobOptions, seconds: float
    ) -> None:
        submission = await make().build(make_request(), "superset", OWNER, WorkClass.BATCH, None, options=options)
        assert submission.deadline_seconds == seconds
