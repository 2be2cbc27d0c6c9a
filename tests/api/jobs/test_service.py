import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from api.jobs.completions import CompletionListener
from api.jobs.service import RerankService
from api.jobs.submissions import Limits, SubmissionBuilder
from api.pool_monitor import PoolMonitor
from shared.contracts import RerankRequest, RerankResult, WorkClass
from shared.errors import (
    IdempotencyConflict,
    InvalidRequest,
    JobCanceled,
    JobExpired,
    JobNotFinished,
    JobNotFound,
    ModelNotFound,
    ModelUnavailable,
    RerankqError,
    ScoringFailed,
    StoreDamaged,
    WaitTimedOut,
)
from shared.keys import job_keys, pool_keys, queue_keys, service_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobFailure, JobRecord, JobStatus
from shared.ledger.worker_ledger import ClaimVerdict
from shared.models import ModelRegistry, ModelSpec
from shared.pools.heartbeats import HeartbeatWriter, WorkerState
from shared.queue.celery_app import make_celery
from shared.queue.messages import MessageBuilder
from shared.score_cache import ScoreReader, ScoreWriter
from tests.api.support import Worker
from tests.shared.support import MODEL, OWNER, StoreView, make_request, make_scores, read_message

LIMITS = Limits(max_documents=3, wait_seconds=10.0, job_deadline_seconds=60.0, shard_tokens=16_384, batch_window=32)
ServiceMaker = Callable[..., RerankService]


@pytest.fixture
def pools(async_client: Any) -> PoolMonitor:
    return PoolMonitor(async_client, [ModelSpec(name=MODEL)])


@pytest.fixture
def make_service(
    ledger: JobLedger, replies: CompletionListener, pools: PoolMonitor, redis_url: str, async_client: Any
) -> ServiceMaker:
    def make(limits: Limits, *, cached: bool = False) -> RerankService:
        preparation = SubmissionBuilder(
            pools=pools,
            models=ModelRegistry([ModelSpec(name=MODEL, aliases=["alias"])]),
            messages=MessageBuilder(make_celery(redis_url)),
            limits=limits,
            scores=ScoreReader(async_client) if cached else None,
        )
        return RerankService(ledger=ledger, replies=replies, preparation=preparation)

    return make


@pytest.fixture
def service(make_service: ServiceMaker) -> RerankService:
    return make_service(LIMITS)


@pytest.fixture
def worker(redis_url: str) -> Worker:
    return Worker(redis_url, make_scores(0.25, 0.75))


async def rerank(
    service: RerankService,
    request: RerankRequest | None = None,
    *,
    wait_seconds: float | None = None,
    idempotency: str | None = None,
) -> RerankResult:
    async with asyncio.timeout(15):
        return await service.rerank(
            request or make_request(),
            dialect="superset",
            owner=OWNER,
            wait_seconds=wait_seconds,
            idempotency=idempotency,
        )


async def submit(
    service: RerankService,
    request: RerankRequest | None = None,
    *,
    owner: str = OWNER,
    idempotency: str | None = None,
) -> JobRecord:
    return await service.submit(request or make_request(), dialect="nebul", owner=owner, idempotency=idempotency)


async def queued_job(client: Any) -> str:
    """The id of the one job that is in the queue, once it is there."""
    for _ in range(500):
        if found := client.zrange(pool_keys.outstanding(MODEL), 0, -1):
            return str(found[0].decode().partition("/")[0])
        await asyncio.sleep(0.01)
    raise AssertionError("no job was submitted")


async def fail_to_start(client: Any, pools: PoolMonitor, worker: str = "w1", *, seconds_ago: float = 0.0) -> None:
    beat = {"worker": worker, "state": "failed", "at": time.time() - seconds_ago, "reason": "the weights are not there"}
    client.hset(pool_keys.workers(MODEL), worker, json.dumps(beat))
    await pools.refresh()


class TestWaiting:
    async def test_the_result_comes_ranked_as_soon_as_it_is_there(self, service: RerankService, worker: Worker) -> None:
        result, verdict = await asyncio.gather(rerank(service), worker.answer_one())
        assert verdict is ClaimVerdict.RUN
        assert [(row.index, row.score) for row in result.rows] == [(1, 0.75), (0, 0.25)]
        assert result.id.startswith("job-")

    async def test_whoever_waits_is_interactive(self, service: RerankService, redis_client: Any) -> None:
        with pytest.raises(WaitTimedOut):
            await rerank(service, wait_seconds=0.05)
        assert redis_client.llen(queue_keys.queue(MODEL, WorkClass.INTERACTIVE)) == 1

    async def test_an_alias_reaches_the_models_pool_and_stays_the_name(
        self, service: RerankService, worker: Worker
    ) -> None:
        result, _ = await asyncio.gather(rerank(service, make_request(model="alias")), worker.answer_one())
        assert result.model == "alias"

    async def test_past_the_wait_the_job_goes_on(self, service: RerankService, worker: Worker) -> None:
        with pytest.raises(WaitTimedOut, match=r"no result within 0\.1 s; the job goes on at /v1/jobs/") as caught:
            await rerank(service, wait_seconds=0.1)
        job_id = caught.value.job_id
        assert (await service.job(job_id, OWNER)).status is JobStatus.QUEUED
        await worker.answer_one()
        record = await service.job(job_id, OWNER)
        assert record.status is JobStatus.SUCCEEDED
        assert (await service.result(record)).id == job_id

    async def test_past_the_wait_it_is_told_when_a_worker_that_starts_will_be_ready(
        self, service: RerankService, pools: PoolMonitor, redis_client: Any
    ) -> None:
        redis_client.hset(pool_keys.measurements(MODEL), "start_seconds", 20)
        HeartbeatWriter(redis_client, MODEL, "w1", started_at=time.time() - 5).beat(WorkerState.STARTING)
        await pools.refresh()
        with pytest.raises(WaitTimedOut) as caught:
            await rerank(service, wait_seconds=0.05)
        assert caught.value.retry_after in (14, 15)

    @pytest.mark.parametrize("wanted", [None, 3600.0])
    async def test_nobody_waits_longer_than_the_server_allows(
        self, make_service: ServiceMaker, wanted: float | None
    ) -> None:
        with pytest.raises(WaitTimedOut, match=r"within 0\.1 s"):
            await rerank(make_service(replace(LIMITS, wait_seconds=0.1)), wait_seconds=wanted)

    async def test_a_caller_that_leaves_cancels_its_job(
        self, service: RerankService, ledger: JobLedger, replies: CompletionListener, redis_client: Any
    ) -> None:
        waiting = asyncio.create_task(rerank(service))
        job_id = await queued_job(redis_client)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await ledger.statuses([job_id]) == {job_id: JobStatus.CANCELED}
        assert dict(replies._waiting) == {}

    async def test_a_job_that_fails_tells_why(self, service: RerankService, redis_url: str) -> None:
        worker = Worker(redis_url, JobFailure("scoring_failed", "the engine gave up"))
        with pytest.raises(ScoringFailed, match="the engine gave up"):
            await asyncio.gather(rerank(service), worker.answer_one())

    async def test_a_job_past_its_deadline_is_not_scored(self, make_service: ServiceMaker, worker: Worker) -> None:
        waiting = asyncio.create_task(rerank(make_service(replace(LIMITS, job_deadline_seconds=0.001))))
        await asyncio.sleep(0.05)
        assert await worker.answer_one() is ClaimVerdict.ENDED
        with pytest.raises(JobExpired, match="passed its deadline"):
            await waiting

    async def test_somebody_else_may_cancel_the_job(self, service: RerankService, redis_client: Any) -> None:
        waiting = asyncio.create_task(rerank(service))
        await service.cancel(await queued_job(redis_client), OWNER)
        with pytest.raises(JobCanceled):
            await waiting

    async def test_somebody_else_may_delete_the_job(self, service: RerankService, redis_client: Any) -> None:
        waiting = asyncio.create_task(rerank(service))
        await service.delete(await queued_job(redis_client), OWNER)
        with pytest.raises(JobNotFound):
            await waiting

    async def test_who_waits_for_a_job_that_is_lost_is_told_soon(
        self, service: RerankService, redis_client: Any
    ) -> None:
        waiting = asyncio.create_task(rerank(service))
        await queued_job(redis_client)
        redis_client.flushall()
        with pytest.raises(StoreDamaged, match="send it again") as caught:
            async with asyncio.timeout(3):
                await waiting
        assert caught.value.retry_after

    async def test_who_asked_for_its_job_is_told_that_there_is_none(
        self, service: RerankService, redis_client: Any
    ) -> None:
        record = await submit(service)
        waiting = asyncio.create_task(service.job(record.id, OWNER, wait_seconds=10))
        await asyncio.sleep(0.1)
        redis_client.flushall()
        with pytest.raises(JobNotFound):
            async with asyncio.timeout(3):
                await waiting


class TestRefusals:
    async def test_an_unknown_model(self, service: RerankService) -> None:
        with pytest.raises(ModelNotFound):
            await rerank(service, make_request(model="nope"))

    async def test_too_many_documents(self, service: RerankService) -> None:
        with pytest.raises(InvalidRequest, match="at most 3 in one request, got 4") as caught:
            await submit(service, make_request("a", "b", "c", "d"))
        assert caught.value.param == "documents"

    @pytest.mark.parametrize("call", [rerank, submit])
    async def test_a_pool_whose_failed_start_is_being_waited_out(
        self, service: RerankService, pools: PoolMonitor, redis_client: Any, call: Callable[[RerankService], Any]
    ) -> None:
        await fail_to_start(redis_client, pools)
        with pytest.raises(ModelUnavailable, match="failed to start: the weights are not there") as caught:
            await call(service)
        assert caught.value.retry_after == 1
        assert not redis_client.exists(pool_keys.outstanding(MODEL))

    async def test_when_that_is_over_it_is_work_that_makes_a_start_be_tried_again(
        self, service: RerankService, pools: PoolMonitor, worker: Worker, redis_client: Any
    ) -> None:
        await fail_to_start(redis_client, pools, seconds_ago=60)
        result, _ = await asyncio.gather(rerank(service), worker.answer_one())
        assert len(result.rows) == 2

    async def test_where_nobody_tries_again_the_reason_is_told_after_a_while(
        self,
        service: RerankService,
        pools: PoolMonitor,
        ledger: JobLedger,
        redis_client: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("api.jobs.service._START_PATIENCE_SECONDS", 1.5)
        await fail_to_start(redis_client, pools, seconds_ago=60)
        began = time.monotonic()
        waiting = asyncio.create_task(rerank(service))
        job_id = await queued_job(redis_client)
        with pytest.raises(ModelUnavailable, match="failed to start: the weights are not there"):
            await waiting
        assert time.monotonic() - began >= 1.5
        assert await ledger.statuses([job_id]) == {job_id: JobStatus.CANCELED}

    async def test_a_pool_that_fails_again_while_somebody_waits(
        self, service: RerankService, pools: PoolMonitor, redis_client: Any
    ) -> None:
        await fail_to_start(redis_client, pools, seconds_ago=60)
        waiting = asyncio.create_task(rerank(service))
        await queued_job(redis_client)
        await fail_to_start(redis_client, pools, "w2")
        with pytest.raises(ModelUnavailable) as caught:
            await waiting
        # The second failure in a row is waited out for two seconds.
        assert caught.value.retry_after in (1, 2)

    async def test_a_pool_that_fails_while_somebody_waits(
        self, service: RerankService, pools: PoolMonitor, ledger: JobLedger, redis_client: Any
    ) -> None:
        waiting = asyncio.create_task(rerank(service))
        job_id = await queued_job(redis_client)
        await fail_to_start(redis_client, pools)
        with pytest.raises(ModelUnavailable):
            await waiting
        assert await ledger.statuses([job_id]) == {job_id: JobStatus.CANCELED}


class TestShards:
    async def test_a_large_request_is_cut_and_its_answer_is_whole(
        self, make_service: ServiceMaker, redis_url: str, store: StoreView
    ) -> None:
        waiting = asyncio.create_task(rerank(make_service(replace(LIMITS, shard_tokens=1)), make_request(*"abc")))
        for score in (0.1, 0.9, 0.5):
            await Worker(redis_url, make_scores(score)).answer_one()
        result = await waiting
        assert [(row.index, row.score, row.document.text) for row in result.rows] == [
            (1, 0.9, "b"),
            (2, 0.5, "c"),
            (0, 0.1, "a"),
        ]

    async def test_what_will_not_be_read_of_a_document_makes_no_shards(self, make_service: ServiceMaker) -> None:
        service = make_service(replace(LIMITS, shard_tokens=60))
        documents = ["long " * (100 + number) for number in range(3)]
        whole = await submit(service, make_request(*documents))
        part = await submit(service, make_request(*documents, max_tokens_per_doc=10))
        assert (whole.shards, part.shards) == (3, 1)

    async def test_whoever_waits_has_every_shard_rung_for_at_once(
        self, make_service: ServiceMaker, store: StoreView
    ) -> None:
        service = make_service(replace(LIMITS, shard_tokens=1, batch_window=1))
        with pytest.raises(WaitTimedOut) as caught:
            await rerank(service, make_request(*"abc"), wait_seconds=0.05)
        job_id = caught.value.job_id
        assert [read_message(message) for message in store.messages()] == [(job_id, 0), (job_id, 1), (job_id, 2)]

    @pytest.mark.parametrize(("window", "rung"), [(1, [0]), (2, [0, 1]), (9, [0, 1, 2])])
    async def test_a_job_that_nobody_waits_for_leaves_room_for_others(
        self, make_service: ServiceMaker, store: StoreView, window: int, rung: list[int]
    ) -> None:
        service = make_service(replace(LIMITS, shard_tokens=1, batch_window=window))
        record = await submit(service, make_request(*"abc"))
        assert (record.shards, record.shards_left, record.pairs) == (3, 3, 3)
        bells = [read_message(message) for message in store.messages(WorkClass.BATCH)]
        assert bells == [(record.id, shard) for shard in rung]


class TestIdempotency:
    async def test_the_same_request_under_the_same_key_is_the_same_job(
        self, service: RerankService, store: StoreView
    ) -> None:
        first, again = [await submit(service, idempotency="mine") for _ in range(2)]
        assert first == again
        assert len(store.outstanding()) == 1

    async def test_another_request_under_the_same_key_is_refused(self, service: RerankService) -> None:
        record = await submit(service, make_request("a"), idempotency="mine")
        for call in (submit, rerank):
            with pytest.raises(IdempotencyConflict):
                await call(service, make_request("b"), idempotency="mine")
        assert (await service.job(record.id, OWNER)).status is JobStatus.QUEUED

    async def test_the_key_of_another_owner_is_another_key(self, service: RerankService) -> None:
        mine = await submit(service, idempotency="mine")
        other = await submit(service, make_request("b"), owner="owner-2", idempotency="mine")
        assert mine.id != other.id

    async def test_asking_again_gives_the_same_answer_and_asks_no_engine(
        self, service: RerankService, worker: Worker, store: StoreView
    ) -> None:
        result, _ = await asyncio.gather(rerank(service, idempotency="mine"), worker.answer_one())
        # At once: nobody waits for what is there.
        async with asyncio.timeout(LIMITS.wait_seconds / 2):
            assert await rerank(service, idempotency="mine") == result
        assert store.messages() == []

    async def test_two_who_ask_at_once_share_the_job(
        self, service: RerankService, worker: Worker, store: StoreView
    ) -> None:
        asking = [asyncio.create_task(rerank(service, idempotency="mine")) for _ in range(2)]
        await worker.answer_one()
        one, other = await asyncio.gather(*asking)
        assert one == other
        assert store.messages() == []

    async def test_past_the_wait_the_caller_may_come_back_and_wait_on(
        self, service: RerankService, worker: Worker
    ) -> None:
        ids = []
        for _ in range(2):
            with pytest.raises(WaitTimedOut, match=r"within 0\.05 s") as caught:
                await rerank(service, wait_seconds=0.05, idempotency="mine")
            ids.append(caught.value.job_id)
        result, _ = await asyncio.gather(rerank(service, idempotency="mine"), worker.answer_one())
        assert {result.id, *ids} == {result.id}

    async def test_a_caller_that_leaves_keeps_its_job(
        self, service: RerankService, worker: Worker, redis_client: Any
    ) -> None:
        waiting = asyncio.create_task(rerank(service, idempotency="mine"))
        job_id = await queued_job(redis_client)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await service.job(job_id, OWNER)).status is JobStatus.QUEUED
        result, _ = await asyncio.gather(rerank(service, idempotency="mine"), worker.answer_one())
        assert result.id == job_id

    async def test_who_leaves_while_another_waits_takes_nothing_from_it(
        self, service: RerankService, worker: Worker, redis_client: Any
    ) -> None:
        first, second = [asyncio.create_task(rerank(service, idempotency="mine")) for _ in range(2)]
        await queued_job(redis_client)
        await asyncio.sleep(0.05)
        first.cancel()
        await asyncio.wait([first])
        await worker.answer_one()
        assert len((await second).rows) == 2

    async def test_a_pool_that_fails_meanwhile_leaves_the_job_to_who_comes_back(
        self, service: RerankService, pools: PoolMonitor, ledger: JobLedger, redis_client: Any
    ) -> None:
        waiting = asyncio.create_task(rerank(service, idempotency="mine"))
        job_id = await queued_job(redis_client)
        await fail_to_start(redis_client, pools)
        with pytest.raises(ModelUnavailable):
            await waiting
        assert await ledger.statuses([job_id]) == {job_id: JobStatus.QUEUED}

    async def test_what_became_of_the_job_is_the_answer(self, service: RerankService) -> None:
        record = await submit(service, idempotency="mine")
        await service.cancel(record.id, OWNER)
        assert (await submit(service, idempotency="mine")).status is JobStatus.CANCELED

    async def test_after_the_job_was_deleted_the_key_is_free(self, service: RerankService) -> None:
        record = await submit(service, idempotency="mine")
        await service.delete(record.id, OWNER)
        assert (await submit(service, make_request("b"), idempotency="mine")).id != record.id


class TestJobs:
    async def test_a_job_that_nobody_waits_for_is_batch_work(self, service: RerankService, redis_client: Any) -> None:
        record = await submit(service)
        assert (record.status, record.owner, record.dialect) == (JobStatus.QUEUED, OWNER, "nebul")
        assert redis_client.llen(queue_keys.queue(MODEL, WorkClass.BATCH)) == 1

    async def test_its_result_can_be_read_again_and_again(self, service: RerankService, worker: Worker) -> None:
        record = await submit(service)
        await worker.answer_one()
        first, second = [await service.result(record) for _ in range(2)]
        assert first == second
        assert [row.index for row in first.rows] == [1, 0]

    async def test_waiting_for_it_ends_when_it_does(self, service: RerankService, worker: Worker) -> None:
        record = await submit(service)
        async with asyncio.timeout(5):
            waited, _ = await asyncio.gather(service.job(record.id, OWNER, wait_seconds=10), worker.answer_one())
        assert waited.status is JobStatus.SUCCEEDED

    async def test_waiting_for_it_ends_after_the_wait(self, service: RerankService) -> None:
        record = await submit(service)
        async with asyncio.timeout(5):
            assert await service.job(record.id, OWNER, wait_seconds=0.1) == record

    async def test_canceling_it_twice_is_canceling_it_once(self, service: RerankService) -> None:
        record = await submit(service)
        canceled = await service.cancel(record.id, OWNER)
        assert canceled.status is JobStatus.CANCELED
        assert await service.cancel(record.id, OWNER) == canceled

    async def test_deleting_it_removes_it(self, service: RerankService) -> None:
        record = await submit(service)
        await service.delete(record.id, OWNER)
        with pytest.raises(JobNotFound):
            await service.job(record.id, OWNER)

    @pytest.mark.parametrize("owner", ["", "owner-2"])
    async def test_to_anybody_else_it_does_not_exist(self, service: RerankService, owner: str) -> None:
        record = await submit(service)
        for call in (service.job, service.cancel, service.delete):
            with pytest.raises(JobNotFound, match=f"there is no job '{record.id}'"):
                await call(record.id, owner)
        assert (await service.job(record.id, OWNER)).status is JobStatus.QUEUED

    async def test_an_unknown_job_is_not_echoed_whole(self, service: RerankService) -> None:
        with pytest.raises(JobNotFound) as caught:
            await service.job("x" * 10_000, OWNER)
        assert len(caught.value.message) < 200

    async def test_without_an_end_there_is_no_result(self, service: RerankService) -> None:
        with pytest.raises(JobNotFinished, match="is queued"):
            await service.result(await submit(service))

    @pytest.mark.parametrize("part", [job_keys.results, job_keys.documents, job_keys.request])
    async def test_a_result_of_which_a_part_is_lost_is_never_half_an_answer(
        self, service: RerankService, worker: Worker, redis_client: Any, part: Callable[[str], str]
    ) -> None:
        record = await submit(service)
        await worker.answer_one()
        redis_client.delete(part(record.id))
        with pytest.raises(StoreDamaged, match="has lost the result"):
            await service.result(record)

    async def test_what_is_deleted_while_it_is_read_is_gone(
        self, service: RerankService, ledger: JobLedger, worker: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = await submit(service)
        await worker.answer_one()
        read_request = ledger.read_request

        async def read_when_it_is_deleted(job_id: str) -> Any:
            assert await ledger.delete(record)
            return await read_request(job_id)

        monkeypatch.setattr(ledger, "read_request", read_when_it_is_deleted)
        with pytest.raises(JobNotFound):
            await service.result(record)

    async def test_a_canceled_job_has_no_result(self, service: RerankService) -> None:
        record = await service.cancel((await submit(service)).id, OWNER)
        with pytest.raises(JobCanceled):
            await service.result(record)

    async def test_a_failed_job_has_the_reason_for_a_result(self, service: RerankService, redis_url: str) -> None:
        record = await submit(service)
        await Worker(redis_url, JobFailure("scoring_failed", "the engine gave up")).answer_one()
        with pytest.raises(RerankqError, match="the engine gave up"):
            await service.result(record)


class TestKnownScores:
    @pytest.fixture
    async def service(self, make_service: ServiceMaker, pools: PoolMonitor) -> RerankService:
        """Reads what is known."""
        await pools.refresh()
        return make_service(LIMITS, cached=True)

    @pytest.fixture
    def remember(self, redis_client: Any) -> Callable[..., None]:
        def remember(request: RerankRequest, *scores: float) -> None:
            cache = ScoreWriter(redis_client, ModelSpec(name=MODEL), seconds=60, entries=1000)
            cache.write(request, make_scores(*scores))

        return remember

    async def test_what_is_known_is_answered_without_a_worker(
        self, service: RerankService, remember: Callable[..., None], store: StoreView
    ) -> None:
        remember(make_request("one", "two"), 0.25, 0.75)
        result = await rerank(service)
        assert [(row.index, row.score) for row in result.rows] == [(1, 0.75), (0, 0.25)]
        assert (result.prompt_tokens, result.cached_pairs) == (0, 2)
        assert store.messages() == []

    async def test_it_can_be_read_again_like_any_other(
        self, service: RerankService, remember: Callable[..., None]
    ) -> None:
        remember(make_request("one", "two"), 0.25, 0.75)
        result = await rerank(service)
        assert await service.result(await service.job(result.id, OWNER)) == result

    async def test_a_job_of_it_has_succeeded_when_it_is_taken(
        self, service: RerankService, remember: Callable[..., None]
    ) -> None:
        remember(make_request("one", "two"), 0.25, 0.75)
        record = await submit(service)
        assert (record.status, record.pairs) == (JobStatus.SUCCEEDED, 2)
        assert [row.score for row in (await service.result(record)).rows] == [0.75, 0.25]

    async def test_a_pool_that_failed_to_start_is_not_needed(
        self, service: RerankService, remember: Callable[..., None], pools: PoolMonitor, redis_client: Any
    ) -> None:
        remember(make_request("one", "two"), 0.25, 0.75)
        await fail_to_start(redis_client, pools)
        assert len((await rerank(service)).rows) == 2
        assert (await submit(service)).status is JobStatus.SUCCEEDED

    async def test_the_rest_is_scored_and_the_whole_answered_now_and_later(
        self, service: RerankService, worker: Worker, remember: Callable[..., None]
    ) -> None:
        remember(make_request("known"), 0.5)
        result, _ = await asyncio.gather(rerank(service, make_request("one", "known", "two")), worker.answer_one())
        assert [(row.index, row.document.text, row.score) for row in result.rows] == [
            (2, "two", 0.75),
            (1, "known", 0.5),
            (0, "one", 0.25),
        ]
        assert result.cached_pairs == 1
        assert await service.result(await service.job(result.id, OWNER)) == result

    async def test_what_is_known_by_now_changes_no_job_that_was_there_before(
        self, service: RerankService, worker: Worker, remember: Callable[..., None]
    ) -> None:
        """Asked again under its key, it is the first answer, whatever became known meanwhile."""
        first, _ = await asyncio.gather(rerank(service, idempotency="mine"), worker.answer_one())
        remember(make_request("one", "two"), 0.5, 0.5)
        assert await rerank(service, idempotency="mine") == first

    async def test_what_is_forgotten_by_now_neither(
        self, service: RerankService, remember: Callable[..., None], redis_client: Any
    ) -> None:
        remember(make_request("one", "two"), 0.25, 0.75)
        first = await rerank(service, idempotency="mine")
        redis_client.delete(*redis_client.keys(service_keys.cached_score("") + "*"))
        assert await rerank(service, idempotency="mine") == first

    async def test_equal_documents_are_scored_once_and_all_ranked(self, service: RerankService, worker: Worker) -> None:
        result, _ = await asyncio.gather(rerank(service, make_request("a", "b", "a")), worker.answer_one())
        assert [(row.index, row.score) for row in result.rows] == [(1, 0.75), (0, 0.25), (2, 0.25)]
        assert result.cached_pairs == 0
        assert await service.result(await service.job(result.id, OWNER)) == result

    async def test_known_scores_of_lost_documents_are_no_result(
        self, service: RerankService, remember: Callable[..., None], redis_client: Any
    ) -> None:
        remember(make_request("one", "two"), 0.25, 0.75)
        record = await submit(service)
        redis_client.delete(job_keys.documents(record.id))
        with pytest.raises(StoreDamaged):
            await service.result(record)
