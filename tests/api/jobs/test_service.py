import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import redis.asyncio

from api.jobs.admission import Admission, AdmissionLimits
from api.jobs.completions import CompletionListener
from api.jobs.service import RerankService
from api.jobs.submissions import Limits, SubmissionBuilder
from api.pool_monitor import PoolMonitor
from shared.contracts import RerankRequest, RerankResult, WorkClass
from shared.errors import (
    IdempotencyConflict,
    InternalError,
    InvalidRequest,
    JobCanceled,
    JobExpired,
    JobNotFinished,
    JobNotFound,
    ModelNotFound,
    ModelUnavailable,
    Overloaded,
    ScoringFailed,
    StoreDamaged,
    TextTooLong,
    WaitTimedOut,
)
from shared.keys import job_keys, pool_keys, queue_keys, service_keys
from shared.ledger.job_index import JobIndex
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobFailure, JobRecord, JobStatus
from shared.ledger.submission import JobOptions
from shared.ledger.verdicts import ClaimVerdict
from shared.models import ModelRegistry, ModelSpec
from shared.pools.heartbeats import HeartbeatWriter, WorkerState
from shared.queue.celery_app import make_celery
from shared.queue.messages import MessageBuilder
from shared.score_cache import ScoreReader, ScoreWriter
from tests.api.support import Worker
from tests.shared.support import MODEL, OWNER, StoreView, make_request, make_scores, make_submission, read_message

LIMITS = Limits(
    max_documents=3,
    wait_seconds=10.0,
    job_deadline_seconds=60.0,
    shard_tokens=16_384,
    batch_window=32,
    max_windows=50_000,
)
ADMISSION_LIMITS = AdmissionLimits(max_pending_tokens=10**9, max_pending_jobs=10**6, max_waiting=100)
ServiceMaker = Callable[..., RerankService]


@pytest.fixture
def pools(async_client: Any) -> PoolMonitor:
    return PoolMonitor(async_client, [ModelSpec(name=MODEL)])


@pytest.fixture
def make_service(
    ledger: JobLedger, completions: CompletionListener, pools: PoolMonitor, redis_url: str, async_client: Any
) -> ServiceMaker:
    def make(
        limits: Limits, *, cached: bool = False, admission_limits: AdmissionLimits = ADMISSION_LIMITS
    ) -> RerankService:
        submissions = SubmissionBuilder(
            pools=pools,
            models=ModelRegistry([ModelSpec(name=MODEL, aliases=["alias"])]),
            messages=MessageBuilder(make_celery(redis_url)),
            limits=limits,
            admission=Admission(pools, admission_limits),
            scores=ScoreReader(async_client) if cached else None,
        )
        return RerankService(
            ledger=ledger, index=JobIndex(async_client), completions=completions, submissions=submissions
        )

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
    patient: bool = False,
) -> RerankResult:
    async with asyncio.timeout(15):
        return await service.rerank(
            request or make_request(),
            dialect="superset",
            owner=OWNER,
            wait_seconds=wait_seconds,
            idempotency=idempotency,
            patient=patient,
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
    """Wait until a job is queued, and return its id."""
    for _ in range(500):
        if found := client.zrange(pool_keys.outstanding(MODEL), 0, -1):
            return str(found[0].decode().partition("/")[0])
        await asyncio.sleep(0.01)
    raise AssertionError("no job was submitted")


async def record_failed_start(client: Any, pools: PoolMonitor, worker: str = "w1", *, seconds_ago: float = 0.0) -> None:
    heartbeat = {
        "worker": worker,
        "state": "failed",
        "at": time.time() - seconds_ago,
        "reason": "the weights do not exist",
    }
    client.hset(pool_keys.workers(MODEL), worker, json.dumps(heartbeat))
    await pools.refresh()


class TestWaiting:
    async def test_ranked_result_is_returned_when_the_job_ends(self, service: RerankService, worker: Worker) -> None:
        result, verdict = await asyncio.gather(rerank(service), worker.process_one())
        assert verdict is ClaimVerdict.RUN
        assert [(row.index, row.score) for row in result.rows] == [(1, 0.75), (0, 0.25)]
        assert result.id.startswith("job-")

    async def test_waiting_requests_are_interactive_jobs(self, service: RerankService, redis_client: Any) -> None:
        with pytest.raises(WaitTimedOut):
            await rerank(service, wait_seconds=0.05, patient=True)
        assert redis_client.llen(queue_keys.queue(MODEL, WorkClass.INTERACTIVE)) == 1

    async def test_alias_uses_the_models_pool_and_stays_in_the_result(
        self, service: RerankService, worker: Worker
    ) -> None:
        result, _ = await asyncio.gather(rerank(service, make_request(model="alias")), worker.process_one())
        assert result.model == "alias"

    async def test_job_continues_after_the_wait(self, service: RerankService, worker: Worker) -> None:
        with pytest.raises(WaitTimedOut, match=r"no result within 0\.1 s; the job continues at /v1/jobs/") as caught:
            await rerank(service, wait_seconds=0.1)
        job_id = caught.value.job_id
        assert (await service.job(job_id, OWNER)).status is JobStatus.QUEUED
        await worker.process_one()
        record = await service.job(job_id, OWNER)
        assert record.status is JobStatus.SUCCEEDED
        assert (await service.result(record)).id == job_id

    @pytest.mark.parametrize(
        ("fields", "work_class"),
        [
            ({}, WorkClass.BATCH),
            ({"idempotency": "key"}, WorkClass.INTERACTIVE),
            ({"patient": True}, WorkClass.INTERACTIVE),
        ],
    )
    async def test_a_job_that_nobody_will_ask_for_becomes_batch_work(
        self, service: RerankService, fields: dict[str, Any], work_class: WorkClass
    ) -> None:
        with pytest.raises(WaitTimedOut) as caught:
            await rerank(service, wait_seconds=0.05, **fields)
        assert (await service.job(caught.value.job_id, OWNER)).work_class is work_class

    async def test_retry_after_is_the_remaining_start_of_a_worker(
        self, service: RerankService, pools: PoolMonitor, redis_client: Any
    ) -> None:
        redis_client.hset(pool_keys.measurements(MODEL), "start_seconds", 20)
        HeartbeatWriter(redis_client, MODEL, "w1", started_at=time.time() - 5).beat(WorkerState.STARTING)
        await pools.refresh()
        with pytest.raises(WaitTimedOut) as caught:
            await rerank(service, wait_seconds=0.05)
        assert caught.value.retry_after in (14, 15)

    @pytest.mark.parametrize("wait_seconds", [None, 3600.0])
    async def test_server_limits_the_wait(self, make_service: ServiceMaker, wait_seconds: float | None) -> None:
        with pytest.raises(WaitTimedOut, match=r"within 0\.1 s"):
            await rerank(make_service(replace(LIMITS, wait_seconds=0.1)), wait_seconds=wait_seconds)

    async def test_cancelled_request_cancels_its_job(
        self, service: RerankService, ledger: JobLedger, completions: CompletionListener, redis_client: Any
    ) -> None:
        waiting = asyncio.create_task(rerank(service))
        job_id = await queued_job(redis_client)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await ledger.statuses([job_id]) == {job_id: JobStatus.CANCELED}
        assert dict(completions._waiting) == {}

    async def test_failed_job_raises_its_reason(self, service: RerankService, redis_url: str) -> None:
        worker = Worker(redis_url, JobFailure("scoring_failed", "the engine failed"))
        with pytest.raises(ScoringFailed, match="the engine failed"):
            await asyncio.gather(rerank(service), worker.process_one())

    async def test_text_that_is_too_long_raises_its_numbers(self, service: RerankService, redis_url: str) -> None:
        worker = Worker(redis_url, JobFailure("text_too_long", "too long", "documents[1]", 600, 512))
        with pytest.raises(TextTooLong, match="too long") as caught:
            await asyncio.gather(rerank(service), worker.process_one())
        error = caught.value
        assert (error.param, error.tokens, error.limit) == ("documents[1]", 600, 512)

    async def test_limit_that_the_worker_refuses_is_an_invalid_request(
        self, service: RerankService, redis_url: str
    ) -> None:
        worker = Worker(redis_url, JobFailure("invalid_request", "too high", "overlap_tokens"))
        with pytest.raises(InvalidRequest, match="too high") as caught:
            await asyncio.gather(rerank(service), worker.process_one())
        assert caught.value.param == "overlap_tokens"

    async def test_job_past_its_deadline_expires(self, make_service: ServiceMaker, worker: Worker) -> None:
        waiting = asyncio.create_task(rerank(make_service(replace(LIMITS, job_deadline_seconds=0.001))))
        await asyncio.sleep(0.05)
        assert await worker.process_one() is ClaimVerdict.ENDED
        with pytest.raises(JobExpired, match="passed its deadline"):
            await waiting

    async def test_job_can_be_canceled_during_the_wait(self, service: RerankService, redis_client: Any) -> None:
        waiting = asyncio.create_task(rerank(service))
        await service.cancel(await queued_job(redis_client), OWNER)
        with pytest.raises(JobCanceled):
            await waiting

    async def test_job_can_be_deleted_during_the_wait(self, service: RerankService, redis_client: Any) -> None:
        waiting = asyncio.create_task(rerank(service))
        await service.delete(await queued_job(redis_client), OWNER)
        with pytest.raises(JobNotFound):
            await waiting

    async def test_lost_job_ends_the_wait_soon(self, service: RerankService, redis_client: Any) -> None:
        waiting = asyncio.create_task(rerank(service))
        await queued_job(redis_client)
        redis_client.flushall()
        with pytest.raises(StoreDamaged, match="send it again") as caught:
            async with asyncio.timeout(3):
                await waiting
        assert caught.value.retry_after

    async def test_lost_job_ends_the_wait_for_its_record(self, service: RerankService, redis_client: Any) -> None:
        record = await submit(service)
        waiting = asyncio.create_task(service.job(record.id, OWNER, wait_seconds=10))
        await asyncio.sleep(0.1)
        redis_client.flushall()
        with pytest.raises(JobNotFound):
            async with asyncio.timeout(3):
                await waiting


class TestOverload:
    async def test_a_request_that_would_wait_too_long_is_refused_and_a_cached_one_is_not(
        self, make_service: ServiceMaker, pools: PoolMonitor, worker: Worker, redis_client: Any
    ) -> None:
        service = make_service(LIMITS, cached=True)
        ScoreWriter(redis_client, ModelSpec(name=MODEL), dtype=None, seconds=60, entries=9).write(
            make_request(), make_scores()
        )
        redis_client.hset(pool_keys.measurements(MODEL), "tokens_per_second", 1)
        HeartbeatWriter(redis_client, MODEL, "w1").beat(WorkerState.READY)
        await pools.refresh()
        with pytest.raises(WaitTimedOut):
            await rerank(service, make_request("x" * 200), wait_seconds=0.05, idempotency="key")
        with pytest.raises(Overloaded, match="longer than this request may wait") as caught:
            await rerank(service, make_request("three"))
        # The first request has 58 estimated tokens; the pool scores one a second, and this one may wait for 20 s.
        assert caught.value.retry_after == pytest.approx(38, abs=2)
        assert len((await rerank(service)).rows) == 2
        await submit(service, make_request("four"))
        with pytest.raises(Overloaded):
            await rerank(service, make_request("five"), wait_seconds=5, patient=True)

    async def test_waiting_callers_of_a_process_are_limited(
        self, make_service: ServiceMaker, worker: Worker, redis_client: Any
    ) -> None:
        service = make_service(LIMITS, admission_limits=replace(ADMISSION_LIMITS, max_waiting=1))
        waiting = asyncio.create_task(rerank(service))
        await queued_job(redis_client)
        with pytest.raises(Overloaded, match="at most 1 requests may wait"):
            await rerank(service, make_request("another"))
        await worker.process_one()
        await waiting
        with pytest.raises(WaitTimedOut):
            await rerank(service, make_request("another"), wait_seconds=0.05)


class TestRejections:
    async def test_unknown_model(self, service: RerankService) -> None:
        with pytest.raises(ModelNotFound):
            await rerank(service, make_request(model="nope"))

    async def test_too_many_documents(self, service: RerankService) -> None:
        with pytest.raises(InvalidRequest, match="at most 3 in one request, got 4") as caught:
            await submit(service, make_request("a", "b", "c", "d"))
        assert caught.value.param == "documents"

    @pytest.mark.parametrize("call", [rerank, submit])
    async def test_pool_in_the_pause_after_a_failed_start(
        self, service: RerankService, pools: PoolMonitor, redis_client: Any, call: Callable[[RerankService], Any]
    ) -> None:
        await record_failed_start(redis_client, pools)
        with pytest.raises(ModelUnavailable, match="failed to start: the weights do not exist") as caught:
            await call(service)
        assert caught.value.retry_after == 1
        assert not redis_client.exists(pool_keys.outstanding(MODEL))

    async def test_job_is_accepted_after_the_pause(
        self, service: RerankService, pools: PoolMonitor, worker: Worker, redis_client: Any
    ) -> None:
        await record_failed_start(redis_client, pools, seconds_ago=60)
        result, _ = await asyncio.gather(rerank(service), worker.process_one())
        assert len(result.rows) == 2

    async def test_pool_without_a_new_start_after_a_failed_one(
        self,
        service: RerankService,
        pools: PoolMonitor,
        ledger: JobLedger,
        redis_client: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("api.jobs.service._RESTART_WAIT_SECONDS", 1.5)
        await record_failed_start(redis_client, pools, seconds_ago=60)
        started = time.monotonic()
        waiting = asyncio.create_task(rerank(service))
        job_id = await queued_job(redis_client)
        with pytest.raises(ModelUnavailable, match="failed to start: the weights do not exist"):
            await waiting
        assert time.monotonic() - started >= 1.5
        assert await ledger.statuses([job_id]) == {job_id: JobStatus.CANCELED}

    async def test_pool_that_fails_again_during_the_wait(
        self, service: RerankService, pools: PoolMonitor, redis_client: Any
    ) -> None:
        await record_failed_start(redis_client, pools, seconds_ago=60)
        waiting = asyncio.create_task(rerank(service))
        await queued_job(redis_client)
        await record_failed_start(redis_client, pools, "w2")
        with pytest.raises(ModelUnavailable) as caught:
            await waiting
        # The pause after the second failure in a row is two seconds.
        assert caught.value.retry_after in (1, 2)

    async def test_pool_that_fails_during_the_wait(
        self, service: RerankService, pools: PoolMonitor, ledger: JobLedger, redis_client: Any
    ) -> None:
        waiting = asyncio.create_task(rerank(service))
        job_id = await queued_job(redis_client)
        await record_failed_start(redis_client, pools)
        with pytest.raises(ModelUnavailable):
            await waiting
        assert await ledger.statuses([job_id]) == {job_id: JobStatus.CANCELED}


class TestShards:
    async def test_large_request_is_cut_into_shards_and_merged(
        self, make_service: ServiceMaker, redis_url: str, store: StoreView
    ) -> None:
        waiting = asyncio.create_task(rerank(make_service(replace(LIMITS, shard_tokens=1)), make_request(*"abc")))
        for score in (0.1, 0.9, 0.5):
            await Worker(redis_url, make_scores(score)).process_one()
        result = await waiting
        assert [(row.index, row.score, row.document.text) for row in result.rows] == [
            (1, 0.9, "b"),
            (2, 0.5, "c"),
            (0, 0.1, "a"),
        ]

    async def test_truncated_tokens_do_not_count_for_shards(self, make_service: ServiceMaker) -> None:
        service = make_service(replace(LIMITS, shard_tokens=60))
        documents = ["long " * (100 + number) for number in range(3)]
        whole = await submit(service, make_request(*documents))
        part = await submit(service, make_request(*documents, max_tokens_per_doc=10))
        assert (whole.shards, part.shards) == (3, 1)

    async def test_interactive_job_enqueues_all_shards(self, make_service: ServiceMaker, store: StoreView) -> None:
        service = make_service(replace(LIMITS, shard_tokens=1, batch_window=1))
        with pytest.raises(WaitTimedOut) as caught:
            await rerank(service, make_request(*"abc"), wait_seconds=0.05, patient=True)
        job_id = caught.value.job_id
        assert [read_message(message) for message in store.messages()] == [(job_id, 0), (job_id, 1), (job_id, 2)]

    @pytest.mark.parametrize(("window", "enqueued"), [(1, [0]), (2, [0, 1]), (9, [0, 1, 2])])
    async def test_batch_job_enqueues_a_window(
        self, make_service: ServiceMaker, store: StoreView, window: int, enqueued: list[int]
    ) -> None:
        service = make_service(replace(LIMITS, shard_tokens=1, batch_window=window))
        record = await submit(service, make_request(*"abc"))
        assert (record.shards, record.shards_left, record.pairs) == (3, 3, 3)
        messages = [read_message(message) for message in store.messages(WorkClass.BATCH)]
        assert messages == [(record.id, shard) for shard in enqueued]


class TestIdempotency:
    async def test_same_request_with_the_same_key_is_one_job(self, service: RerankService, store: StoreView) -> None:
        first, again = [await submit(service, idempotency="mine") for _ in range(2)]
        assert first == again
        assert len(store.outstanding()) == 1

    async def test_other_request_with_the_same_key_is_rejected(self, service: RerankService) -> None:
        record = await submit(service, make_request("a"), idempotency="mine")
        for call in (submit, rerank):
            with pytest.raises(IdempotencyConflict):
                await call(service, make_request("b"), idempotency="mine")
        assert (await service.job(record.id, OWNER)).status is JobStatus.QUEUED

    async def test_owners_do_not_share_keys(self, service: RerankService) -> None:
        mine = await submit(service, idempotency="mine")
        other = await submit(service, make_request("b"), owner="owner-2", idempotency="mine")
        assert mine.id != other.id

    async def test_repeated_request_returns_the_same_result_without_scoring(
        self, service: RerankService, worker: Worker, store: StoreView
    ) -> None:
        result, _ = await asyncio.gather(rerank(service, idempotency="mine"), worker.process_one())
        # A job that has ended needs no wait.
        async with asyncio.timeout(LIMITS.wait_seconds / 2):
            assert await rerank(service, idempotency="mine") == result
        assert store.messages() == []

    async def test_concurrent_requests_share_the_job(
        self, service: RerankService, worker: Worker, store: StoreView
    ) -> None:
        requests = [asyncio.create_task(rerank(service, idempotency="mine")) for _ in range(2)]
        await worker.process_one()
        one, other = await asyncio.gather(*requests)
        assert one == other
        assert store.messages() == []

    async def test_request_can_be_repeated_after_the_wait(self, service: RerankService, worker: Worker) -> None:
        ids = []
        for _ in range(2):
            with pytest.raises(WaitTimedOut, match=r"within 0\.05 s") as caught:
                await rerank(service, wait_seconds=0.05, idempotency="mine")
            ids.append(caught.value.job_id)
        result, _ = await asyncio.gather(rerank(service, idempotency="mine"), worker.process_one())
        assert {result.id, *ids} == {result.id}

    async def test_cancelled_request_with_a_key_keeps_its_job(
        self, service: RerankService, worker: Worker, redis_client: Any
    ) -> None:
        waiting = asyncio.create_task(rerank(service, idempotency="mine"))
        job_id = await queued_job(redis_client)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await service.job(job_id, OWNER)).status is JobStatus.QUEUED
        result, _ = await asyncio.gather(rerank(service, idempotency="mine"), worker.process_one())
        assert result.id == job_id

    async def test_cancelled_request_does_not_affect_another_with_the_same_key(
        self, service: RerankService, worker: Worker, redis_client: Any
    ) -> None:
        first, second = [asyncio.create_task(rerank(service, idempotency="mine")) for _ in range(2)]
        await queued_job(redis_client)
        await asyncio.sleep(0.05)
        first.cancel()
        await asyncio.wait([first])
        await worker.process_one()
        assert len((await second).rows) == 2

    async def test_failed_pool_keeps_the_job_with_a_key(
        self, service: RerankService, pools: PoolMonitor, ledger: JobLedger, redis_client: Any
    ) -> None:
        waiting = asyncio.create_task(rerank(service, idempotency="mine"))
        job_id = await queued_job(redis_client)
        await record_failed_start(redis_client, pools)
        with pytest.raises(ModelUnavailable):
            await waiting
        assert await ledger.statuses([job_id]) == {job_id: JobStatus.QUEUED}

    async def test_repeated_request_returns_the_current_state_of_the_job(self, service: RerankService) -> None:
        record = await submit(service, idempotency="mine")
        await service.cancel(record.id, OWNER)
        assert (await submit(service, idempotency="mine")).status is JobStatus.CANCELED

    async def test_deleted_job_frees_its_key(self, service: RerankService) -> None:
        record = await submit(service, idempotency="mine")
        await service.delete(record.id, OWNER)
        assert (await submit(service, make_request("b"), idempotency="mine")).id != record.id


class TestJobs:
    async def test_submitted_job_is_a_batch_job(self, service: RerankService, redis_client: Any) -> None:
        record = await submit(service)
        assert (record.status, record.owner, record.dialect) == (JobStatus.QUEUED, OWNER, "nebul")
        assert redis_client.llen(queue_keys.queue(MODEL, WorkClass.BATCH)) == 1

    async def test_result_can_be_read_several_times(self, service: RerankService, worker: Worker) -> None:
        record = await submit(service)
        await worker.process_one()
        first, second = [await service.result(record) for _ in range(2)]
        assert first == second
        assert [row.index for row in first.rows] == [1, 0]

    async def test_wait_ends_with_the_job(self, service: RerankService, worker: Worker) -> None:
        record = await submit(service)
        async with asyncio.timeout(5):
            waited, _ = await asyncio.gather(service.job(record.id, OWNER, wait_seconds=10), worker.process_one())
        assert waited.status is JobStatus.SUCCEEDED

    async def test_wait_for_a_job_that_another_process_submitted_ends_with_the_job(
        self, monkeypatch: pytest.MonkeyPatch, service: RerankService, async_client: redis.asyncio.Redis
    ) -> None:
        other = JobLedger(async_client)
        await other.submit(make_submission("job-1"))
        record = await service.job("job-1", OWNER)
        with monkeypatch.context() as patched:
            # Only a notification ends the wait.
            patched.setattr(service._completions, "_poll", asyncio.Event().wait)
            waiting = asyncio.create_task(service.job(record.id, OWNER, wait_seconds=10))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            await other.cancel(record)
            async with asyncio.timeout(5):
                assert (await waiting).status is JobStatus.CANCELED

    async def test_wait_ends_after_its_limit(self, service: RerankService) -> None:
        record = await submit(service)
        async with asyncio.timeout(5):
            assert await service.job(record.id, OWNER, wait_seconds=0.1) == record

    async def test_canceling_twice_is_like_canceling_once(self, service: RerankService) -> None:
        record = await submit(service)
        canceled = await service.cancel(record.id, OWNER)
        assert canceled.status is JobStatus.CANCELED
        assert await service.cancel(record.id, OWNER) == canceled

    async def test_deleted_job_is_not_found(self, service: RerankService) -> None:
        record = await submit(service)
        await service.delete(record.id, OWNER)
        with pytest.raises(JobNotFound):
            await service.job(record.id, OWNER)

    @pytest.mark.parametrize("owner", ["", "owner-2"])
    async def test_job_of_another_owner_is_not_found(self, service: RerankService, owner: str) -> None:
        record = await submit(service)
        for call in (service.job, service.cancel, service.delete):
            with pytest.raises(JobNotFound, match=f"there is no job '{record.id}'"):
                await call(record.id, owner)
        assert (await service.job(record.id, OWNER)).status is JobStatus.QUEUED

    async def test_long_unknown_job_id_is_shortened_in_the_error(self, service: RerankService) -> None:
        with pytest.raises(JobNotFound) as caught:
            await service.job("x" * 10_000, OWNER)
        assert len(caught.value.message) < 200

    async def test_unfinished_job_has_no_result(self, service: RerankService) -> None:
        with pytest.raises(JobNotFinished, match="is queued"):
            await service.result(await submit(service))

    @pytest.mark.parametrize("part", [job_keys.results, job_keys.documents, job_keys.request])
    async def test_incomplete_result_is_an_error(
        self, service: RerankService, worker: Worker, redis_client: Any, part: Callable[[str], str]
    ) -> None:
        record = await submit(service)
        await worker.process_one()
        redis_client.delete(part(record.id))
        with pytest.raises(StoreDamaged, match="has lost the result"):
            await service.result(record)

    async def test_job_deleted_during_the_read_is_not_found(
        self, service: RerankService, ledger: JobLedger, worker: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = await submit(service)
        await worker.process_one()
        read_request = ledger.read_request

        async def delete_and_read(job_id: str) -> Any:
            assert await ledger.delete(record)
            return await read_request(job_id)

        monkeypatch.setattr(ledger, "read_request", delete_and_read)
        with pytest.raises(JobNotFound):
            await service.result(record)

    async def test_canceled_job_has_no_result(self, service: RerankService) -> None:
        record = await service.cancel((await submit(service)).id, OWNER)
        with pytest.raises(JobCanceled):
            await service.result(record)

    async def test_result_of_a_failed_job_raises_its_reason(self, service: RerankService, redis_url: str) -> None:
        record = await submit(service)
        await Worker(redis_url, JobFailure("scoring_failed", "the engine failed")).process_one()
        with pytest.raises(ScoringFailed, match=r"^the engine failed$"):
            await service.result(record)

    async def test_failed_job_without_a_reason_is_an_internal_error(
        self, service: RerankService, worker: Worker, redis_client: Any
    ) -> None:
        record = await submit(service)
        await worker.process_one()
        redis_client.hset(job_keys.job(record.id), "status", "failed")
        with pytest.raises(InternalError):
            await service.result(record)


class TestKnownScores:
    @pytest.fixture
    async def service(self, make_service: ServiceMaker, pools: PoolMonitor) -> RerankService:
        """A service that reads the score cache."""
        await pools.refresh()
        return make_service(LIMITS, cached=True)

    @pytest.fixture
    def cache_scores(self, redis_client: Any) -> Callable[..., None]:
        def cache_scores(request: RerankRequest, *scores: float) -> None:
            cache = ScoreWriter(redis_client, ModelSpec(name=MODEL), dtype=None, seconds=60, entries=1000)
            cache.write(request, make_scores(*scores))

        return cache_scores

    async def test_known_scores_need_no_worker(
        self, service: RerankService, cache_scores: Callable[..., None], store: StoreView
    ) -> None:
        cache_scores(make_request("one", "two"), 0.25, 0.75)
        result = await rerank(service)
        assert [(row.index, row.score) for row in result.rows] == [(1, 0.75), (0, 0.25)]
        assert (result.prompt_tokens, result.cached_pairs) == (0, 2)
        assert store.messages() == []

    async def test_result_of_known_scores_can_be_read_later(
        self, service: RerankService, cache_scores: Callable[..., None]
    ) -> None:
        cache_scores(make_request("one", "two"), 0.25, 0.75)
        result = await rerank(service)
        assert await service.result(await service.job(result.id, OWNER)) == result

    async def test_job_with_known_scores_succeeds_on_submission(
        self, service: RerankService, cache_scores: Callable[..., None]
    ) -> None:
        cache_scores(make_request("one", "two"), 0.25, 0.75)
        record = await submit(service)
        assert (record.status, record.pairs) == (JobStatus.SUCCEEDED, 2)
        assert [row.score for row in (await service.result(record)).rows] == [0.75, 0.25]

    async def test_known_scores_need_no_working_pool(
        self, service: RerankService, cache_scores: Callable[..., None], pools: PoolMonitor, redis_client: Any
    ) -> None:
        cache_scores(make_request("one", "two"), 0.25, 0.75)
        await record_failed_start(redis_client, pools)
        assert len((await rerank(service)).rows) == 2
        assert (await submit(service)).status is JobStatus.SUCCEEDED

    async def test_known_and_new_scores_are_merged_now_and_later(
        self, service: RerankService, worker: Worker, cache_scores: Callable[..., None]
    ) -> None:
        cache_scores(make_request("known"), 0.5)
        result, _ = await asyncio.gather(rerank(service, make_request("one", "known", "two")), worker.process_one())
        assert [(row.index, row.document.text, row.score) for row in result.rows] == [
            (2, "two", 0.75),
            (1, "known", 0.5),
            (0, "one", 0.25),
        ]
        assert result.cached_pairs == 1
        assert await service.result(await service.job(result.id, OWNER)) == result

    async def test_newly_cached_scores_do_not_change_an_existing_job(
        self, service: RerankService, worker: Worker, cache_scores: Callable[..., None]
    ) -> None:
        first, _ = await asyncio.gather(rerank(service, idempotency="mine"), worker.process_one())
        cache_scores(make_request("one", "two"), 0.5, 0.5)
        assert await rerank(service, idempotency="mine") == first

    async def test_evicted_scores_do_not_change_an_existing_job(
        self, service: RerankService, cache_scores: Callable[..., None], redis_client: Any
    ) -> None:
        cache_scores(make_request("one", "two"), 0.25, 0.75)
        first = await rerank(service, idempotency="mine")
        redis_client.delete(*redis_client.keys(service_keys.cached_score("") + "*"))
        assert await rerank(service, idempotency="mine") == first

    async def test_equal_documents_are_scored_once(self, service: RerankService, worker: Worker) -> None:
        result, _ = await asyncio.gather(rerank(service, make_request("a", "b", "a")), worker.process_one())
        assert [(row.index, row.score) for row in result.rows] == [(1, 0.75), (0, 0.25), (2, 0.25)]
        assert result.cached_pairs == 0
        assert await service.result(await service.job(result.id, OWNER)) == result

    async def test_known_scores_without_documents_are_an_error(
        self, service: RerankService, cache_scores: Callable[..., None], redis_client: Any
    ) -> None:
        cache_scores(make_request("one", "two"), 0.25, 0.75)
        record = await submit(service)
        redis_client.delete(job_keys.documents(record.id))
        with pytest.raises(StoreDamaged):
            await service.result(record)


class TestOptions:
    """How long a job may take, and how long it can be read, when its caller says so."""

    async def test_job_expires_at_its_callers_deadline(self, service: RerankService, worker: Worker) -> None:
        options = JobOptions(deadline_seconds=0.001)
        record = await service.submit(make_request(), dialect="superset", owner=OWNER, options=options)
        await asyncio.sleep(0.05)
        assert await worker.process_one() is ClaimVerdict.ENDED
        assert (await service.job(record.id, OWNER)).status is JobStatus.EXPIRED

    async def test_result_lives_as_long_as_its_caller_wants(
        self, service: RerankService, worker: Worker, store: StoreView
    ) -> None:
        options = JobOptions(result_seconds=30.0)
        result, _ = await asyncio.gather(
            service.rerank(make_request(), dialect="superset", owner=OWNER, wait_seconds=None, options=options),
            worker.process_one(),
        )
        assert store.remaining_seconds(job_keys.results(result.id)) == pytest.approx(30.0, abs=2)

    async def test_submitted_job_is_interactive_when_its_caller_waits(
        self, service: RerankService, redis_client: Any
    ) -> None:
        await service.submit(make_request(), dialect="superset", owner=OWNER, wait_seconds=1.0)
        assert redis_client.llen(queue_keys.queue(MODEL, WorkClass.INTERACTIVE)) == 1
