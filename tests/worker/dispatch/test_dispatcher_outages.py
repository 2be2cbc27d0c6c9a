"""Redis is away, or an answer of it is lost: what is in hand is kept, and told exactly once."""

import time
from typing import Any

import pytest

import worker.dispatch.leases
import worker.dispatch.result_reporter
from shared.contracts import WorkClass
from shared.errors import StoreUnavailable
from shared.keys import job_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobStatus
from shared.queue.celery_app import make_celery
from shared.queue.messages import MessageBuilder
from tests.shared.support import JOB, MODEL, StoreView, out_of_memory, read_message, read_record
from tests.worker.support import (
    GuardedEngine,
    Pool,
    ScriptedEngine,
    ShakyLedger,
    WakeUpSender,
    a_while,
    in_thread,
    make_dispatcher,
    wait_until,
)
from worker.dispatch.leases import LeaseKeeper
from worker.engines.base import (
    BatchScores,
    Cancellation,
    EngineDied,
    EngineError,
    ScoringBatch,
    TransientEngineError,
)

INTERACTIVE = WorkClass.INTERACTIVE


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis is asked again soon."""
    monkeypatch.setattr(worker.dispatch.result_reporter, "_STORE_RETRY_SECONDS", (0.005, 0.01))
    monkeypatch.setattr(worker.dispatch.result_reporter, "FINAL_RETRY_SECONDS", 0.3)


class OddEngine(GuardedEngine):
    """As a guarded one; then says of some texts what it was told to say."""

    def __init__(self, answers: dict[str, Exception]) -> None:
        super().__init__()
        self._answers = answers

    def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
        scores = super().score(batch, cancellation)
        if error := self._answers.get(batch.documents[0]):
            raise error
        return scores


class TestClaims:
    async def test_the_first_one_fails_and_with_it_the_task(self, pool: Pool, shaky: ShakyLedger) -> None:
        await pool.submit("zero")
        dispatcher = make_dispatcher(shaky, ScriptedEngine())
        shaky.away = True
        with pytest.raises(StoreUnavailable):
            dispatcher.run(JOB, 0, INTERACTIVE)
        shaky.away = False
        dispatcher.run(JOB, 0, INTERACTIVE)
        assert await pool.scores() == [[0.0]]

    async def test_a_later_one_whose_answer_is_lost_is_repeated_and_its_shards_are_scored(
        self, pool: Pool, wake_ups: WakeUpSender, store: StoreView, shaky: ShakyLedger
    ) -> None:
        """They are leased already: left alone, they would all be charged for a crash that never was."""
        await pool.submit("zero", "one", "two")
        engine = GuardedEngine()
        dispatcher = make_dispatcher(shaky, engine)
        with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
            wait_until(lambda: engine.inside() == {"zero"})
            shaky.lose["claim_all"] = 3
            wake_ups.send(1, 2)
            wait_until(lambda: len(engine.inside()) == 3)
            engine.let_all_go()
        assert shaky.failed["claim_all"] == 3
        assert len(await pool.scores()) == 3
        assert [store.shard(shard)["finishes_accepted"] for shard in range(3)] == ["1", "1", "1"]

    async def test_also_that_of_one_that_must_be_alone(
        self, pool: Pool, wake_ups: WakeUpSender, redis_client: Any, shaky: ShakyLedger
    ) -> None:
        await pool.submit("zero", "the suspect", "two")
        redis_client.hset(job_keys.shards(JOB), "1:run_alone", 1)
        wake_ups.send(1)
        engine = GuardedEngine()
        dispatcher = make_dispatcher(shaky, engine)
        with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
            wait_until(lambda: engine.inside() == {"zero"})
            wait_until(lambda: wake_ups.waiting() == 0)
            a_while()
            shaky.lose["claim_all"] = 2
            wake_ups.send(2)
            engine.let_all_go()
        assert [names for names in engine.entered if "the suspect" in names] == [("the suspect",)]
        assert len(engine.batches) >= 2

    async def test_a_worker_that_leaves_meanwhile_does_not_wait_for_redis(
        self, pool: Pool, wake_ups: WakeUpSender, shaky: ShakyLedger
    ) -> None:
        await pool.submit("zero", "one")
        engine = GuardedEngine()
        dispatcher = make_dispatcher(shaky, engine)
        with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)) as running:
            wait_until(lambda: engine.inside() == {"zero"})
            shaky.lose["claim_all"] = 10**9
            wake_ups.send(1)
            wait_until(lambda: shaky.failed["claim_all"] > 0)
            engine.let_all_go()
            a_while()
            assert not running.done()
            dispatcher.stop_waiting()
        assert [names[-1] for names in engine.entered] == ["zero"]


class TestHandingIn:
    async def test_scores_wait_for_redis_and_their_leases_are_kept_meanwhile(
        self,
        pool: Pool,
        ledger: JobLedger,
        store: StoreView,
        redis_client: Any,
        redis_url: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(worker.dispatch.leases, "RENEW_SECONDS", 0.05)
        shaky = ShakyLedger(redis_client, MessageBuilder(make_celery(redis_url)), lease_seconds=0.5)
        leases = LeaseKeeper(shaky)
        await pool.submit("zero")
        engine = GuardedEngine()
        dispatcher = make_dispatcher(shaky, engine, leases)
        leases.start()
        try:
            with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
                wait_until(lambda: engine.inside() == {"zero"})
                shaky.away = True
                engine.let_all_go()
                until = time.monotonic() + 1.2
                while time.monotonic() < until:
                    store.make_due()
                    assert await ledger.reconcile(MODEL) == []
                    a_while(0.05)
                assert shaky.failed["finish_and_dequeue"] > 3
                shaky.away = False
        finally:
            leases.stop()
        assert await pool.scores() == [[0.0]]
        assert store.shard()["finishes_accepted"] == "1"

    async def test_scores_whose_answer_is_lost_count_once_and_are_told_no_longer(
        self, pool: Pool, store: StoreView, shaky: ShakyLedger
    ) -> None:
        await pool.submit("zero", "one")
        shaky.lose["finish_and_dequeue"] = 2
        leases = LeaseKeeper(shaky)
        make_dispatcher(shaky, ScriptedEngine(), leases).run(JOB, 0, INTERACTIVE)
        assert store.shard()["finishes_accepted"] == "1"
        assert shaky.failed["finish_and_dequeue"] == 2
        assert leases.release_all() == 0

    async def test_a_worker_that_leaves_does_not_wait_for_redis(
        self, pool: Pool, ledger: JobLedger, shaky: ShakyLedger
    ) -> None:
        """Its leases run out, and somebody else scores the shards."""
        await pool.submit("zero", "one")
        engine = GuardedEngine()
        leases = LeaseKeeper(shaky)
        dispatcher = make_dispatcher(shaky, engine, leases)
        with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)) as running:
            wait_until(lambda: engine.inside() == {"zero"})
            shaky.away = True
            engine.let_all_go()
            a_while()
            assert not running.done()
            left_at = time.monotonic()
            dispatcher.stop_waiting()
        assert time.monotonic() - left_at < 3
        assert leases.release_all() == 0
        assert (await read_record(ledger)).status is JobStatus.RUNNING

    async def test_a_worker_that_closes_waits_and_tells(self, pool: Pool, shaky: ShakyLedger) -> None:
        await pool.submit("zero")
        engine = GuardedEngine()
        dispatcher = make_dispatcher(shaky, engine)
        with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
            wait_until(lambda: engine.inside() == {"zero"})
            shaky.away = True
            engine.let_all_go()
            wait_until(lambda: shaky.failed["finish_and_dequeue"] > 0)
            dispatcher.close()
            shaky.away = False
        assert await pool.scores() == [[0.0]]

    @pytest.mark.parametrize(
        ("error", "call", "told"),
        [
            (EngineDied("gone"), "release", {"status": "queued", "resends": "0"}),
            (TransientEngineError("not now"), "retry_later", {"status": "queued", "resends": "0", "retries": "1"}),
        ],
    )
    async def test_what_is_no_score_is_told_once_too_and_what_was_heard_with_it_is_not_lost(
        self,
        pool: Pool,
        wake_ups: WakeUpSender,
        store: StoreView,
        shaky: ShakyLedger,
        error: Exception,
        call: str,
        told: dict[str, str],
    ) -> None:
        """In one round two shards are handed in and a third is heard; then the first one's answer is lost, twice."""
        await pool.submit("zero", job_id="job-2")
        await pool.submit("one", "two")
        engine = OddEngine({"zero": error})
        dispatcher = make_dispatcher(shaky, engine, concurrency=2)
        wake_ups.send(0)
        with in_thread(lambda: dispatcher.run("job-2", 0, INTERACTIVE)):
            wait_until(lambda: engine.inside() == {"zero", "one"})
            shaky.lose[call] = 2
            wake_ups.send(1)
            engine.let_all_go()
        assert shaky.failed[call] == 2
        assert store.shard(job_id="job-2") == told
        rung = [read_message(message) for message in store.messages()]
        assert rung.count(("job-2", 0)) <= 1
        # A worker whose engine died takes nothing more.
        assert rung.count((JOB, 1)) == 1 or len(await pool.scores()) == 2

    async def test_a_failure_whose_answer_is_lost_fails_the_job_once(
        self, pool: Pool, ledger: JobLedger, shaky: ShakyLedger
    ) -> None:
        await pool.submit("zero")
        shaky.lose["fail"] = 1
        make_dispatcher(shaky, ScriptedEngine(EngineError("never"))).run(JOB, 0, INTERACTIVE)
        record = await read_record(ledger)
        assert record.status is JobStatus.FAILED
        assert shaky.failed["fail"] == 1


async def test_a_dispatcher_that_lingers_hears_what_is_rung_when_redis_is_back(
    pool: Pool, wake_ups: WakeUpSender, shaky: ShakyLedger
) -> None:
    await pool.submit("zero", "one")
    dispatcher = make_dispatcher(shaky, ScriptedEngine(), linger_seconds=1.5)
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        a_while()
        shaky.away = True
        wait_until(lambda: shaky.failed["wait_for_wake_up"] > 0)
        shaky.away = False
        wake_ups.send(1)
    assert len(await pool.scores()) == 2


async def test_a_full_redis_is_no_reason_to_stop(
    pool: Pool, wake_ups: WakeUpSender, redis_client: Any, shaky: ShakyLedger
) -> None:
    await pool.submit("zero", "one", "two", "three")
    wake_ups.send(1, 2, 3)
    with out_of_memory(redis_client):
        make_dispatcher(shaky, ScriptedEngine(), concurrency=2).run(JOB, 0, INTERACTIVE)
    assert len(await pool.scores()) == 4


async def test_a_redis_that_has_forgotten_its_scripts_is_no_reason_either(
    pool: Pool, wake_ups: WakeUpSender, redis_client: Any, shaky: ShakyLedger, store: StoreView
) -> None:
    await pool.submit("zero", "one", "two")
    engine = GuardedEngine()
    dispatcher = make_dispatcher(shaky, engine, concurrency=2)
    wake_ups.send(1)
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        wait_until(lambda: engine.inside() == {"zero", "one"})
        wake_ups.send(2)
        redis_client.script_flush()
        engine.let_all_go()
    assert len(await pool.scores()) == 3
    assert not shaky.failed
