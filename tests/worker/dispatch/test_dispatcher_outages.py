"""Redis is away, or an answer of it is lost: what is in hand is kept, and told exactly once."""

import time
from typing import Any

import pytest

import worker.dispatch.leases
import worker.dispatch.result_reporter
from shared import keys
from shared.contracts import WorkClass
from shared.errors import StoreUnavailable
from shared.ledger.job_ledger import Ledger
from shared.ledger.job_record import JobState
from shared.queue.celery_app import Envelopes, make_celery
from tests.shared.support import JOB, MODEL, StoreView, out_of_memory, read_doorbell, read_record
from tests.worker.support import (
    Bells,
    GuardedEngine,
    Pool,
    ShakyLedger,
    ToldEngine,
    a_while,
    in_thread,
    make_dispatcher,
    wait_until,
)
from worker.dispatch.leases import Leases
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
    monkeypatch.setattr(worker.dispatch.result_reporter, "LAST_TRIES_SECONDS", 0.3)


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
        dispatcher = make_dispatcher(shaky, ToldEngine())
        shaky.away = True
        with pytest.raises(StoreUnavailable):
            dispatcher.run(JOB, 0, INTERACTIVE)
        shaky.away = False
        dispatcher.run(JOB, 0, INTERACTIVE)
        assert await pool.scores() == [[0.0]]

    async def test_a_later_one_whose_answer_is_lost_is_repeated_and_its_shards_are_scored(
        self, pool: Pool, bells: Bells, store: StoreView, shaky: ShakyLedger
    ) -> None:
        """They are leased already: left alone, they would all be charged for a crash that never was."""
        await pool.submit("zero", "one", "two")
        engine = GuardedEngine()
        dispatcher = make_dispatcher(shaky, engine)
        with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
            wait_until(lambda: engine.inside() == {"zero"})
            shaky.lose["claim_all"] = 3
            bells.ring(1, 2)
            wait_until(lambda: len(engine.inside()) == 3)
            engine.let_all_go()
        assert shaky.failed["claim_all"] == 3
        assert len(await pool.scores()) == 3
        assert [store.shard(shard)["accepted"] for shard in range(3)] == ["1", "1", "1"]

    async def test_also_that_of_one_that_must_be_alone(
        self, pool: Pool, bells: Bells, redis_client: Any, shaky: ShakyLedger
    ) -> None:
        await pool.submit("zero", "the suspect", "two")
        redis_client.hset(keys.shards(JOB), "1:alone", 1)
        bells.ring(1)
        engine = GuardedEngine()
        dispatcher = make_dispatcher(shaky, engine)
        with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
            wait_until(lambda: engine.inside() == {"zero"})
            wait_until(lambda: bells.waiting() == 0)
            a_while()
            shaky.lose["claim_all"] = 2
            bells.ring(2)
            engine.let_all_go()
        assert [names for names in engine.entered if "the suspect" in names] == [("the suspect",)]
        assert len(engine.batches) >= 2

    async def test_a_worker_that_leaves_meanwhile_does_not_wait_for_redis(
        self, pool: Pool, bells: Bells, shaky: ShakyLedger
    ) -> None:
        await pool.submit("zero", "one")
        engine = GuardedEngine()
        dispatcher = make_dispatcher(shaky, engine)
        with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)) as running:
            wait_until(lambda: engine.inside() == {"zero"})
            shaky.lose["claim_all"] = 10**9
            bells.ring(1)
            wait_until(lambda: shaky.failed["claim_all"] > 0)
            engine.let_all_go()
            a_while()
            assert not running.done()
            dispatcher.leave()
        assert [names[-1] for names in engine.entered] == ["zero"]


class TestHandingIn:
    async def test_scores_wait_for_redis_and_their_leases_are_kept_meanwhile(
        self,
        pool: Pool,
        ledger: Ledger,
        store: StoreView,
        redis_client: Any,
        redis_url: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(worker.dispatch.leases, "RENEW_SECONDS", 0.05)
        shaky = ShakyLedger(redis_client, Envelopes(make_celery(redis_url)), lease_seconds=0.5)
        leases = Leases(shaky)
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
                assert shaky.failed["exchange"] > 3
                shaky.away = False
        finally:
            leases.stop()
        assert await pool.scores() == [[0.0]]
        assert store.shard()["accepted"] == "1"

    async def test_scores_whose_answer_is_lost_count_once_and_are_told_no_longer(
        self, pool: Pool, store: StoreView, shaky: ShakyLedger
    ) -> None:
        await pool.submit("zero", "one")
        shaky.lose["exchange"] = 2
        leases = Leases(shaky)
        make_dispatcher(shaky, ToldEngine(), leases).run(JOB, 0, INTERACTIVE)
        assert store.shard()["accepted"] == "1"
        assert shaky.failed["exchange"] == 2
        assert leases.give_back_all() == 0

    async def test_a_worker_that_leaves_does_not_wait_for_redis(
        self, pool: Pool, ledger: Ledger, shaky: ShakyLedger
    ) -> None:
        """Its leases run out, and somebody else scores the shards."""
        await pool.submit("zero", "one")
        engine = GuardedEngine()
        leases = Leases(shaky)
        dispatcher = make_dispatcher(shaky, engine, leases)
        with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)) as running:
            wait_until(lambda: engine.inside() == {"zero"})
            shaky.away = True
            engine.let_all_go()
            a_while()
            assert not running.done()
            left_at = time.monotonic()
            dispatcher.leave()
        assert time.monotonic() - left_at < 3
        assert leases.give_back_all() == 0
        assert (await read_record(ledger)).state is JobState.RUNNING

    async def test_a_worker_that_closes_waits_and_tells(self, pool: Pool, shaky: ShakyLedger) -> None:
        await pool.submit("zero")
        engine = GuardedEngine()
        dispatcher = make_dispatcher(shaky, engine)
        with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
            wait_until(lambda: engine.inside() == {"zero"})
            shaky.away = True
            engine.let_all_go()
            wait_until(lambda: shaky.failed["exchange"] > 0)
            dispatcher.close()
            shaky.away = False
        assert await pool.scores() == [[0.0]]

    @pytest.mark.parametrize(
        ("error", "call", "told"),
        [
            (EngineDied("gone"), "give_back", {"state": "queued", "rings": "0"}),
            (TransientEngineError("not now"), "retry_later", {"state": "queued", "rings": "0", "retries": "1"}),
        ],
    )
    async def test_what_is_no_score_is_told_once_too_and_what_was_heard_with_it_is_not_lost(
        self,
        pool: Pool,
        bells: Bells,
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
        bells.ring(0)
        with in_thread(lambda: dispatcher.run("job-2", 0, INTERACTIVE)):
            wait_until(lambda: engine.inside() == {"zero", "one"})
            shaky.lose[call] = 2
            bells.ring(1)
            engine.let_all_go()
        assert shaky.failed[call] == 2
        assert store.shard(job_id="job-2") == told
        rung = [read_doorbell(message) for message in store.doorbells()]
        assert rung.count(("job-2", 0)) <= 1
        # A worker whose engine died takes nothing more.
        assert rung.count((JOB, 1)) == 1 or len(await pool.scores()) == 2

    async def test_a_failure_whose_answer_is_lost_fails_the_job_once(
        self, pool: Pool, ledger: Ledger, shaky: ShakyLedger
    ) -> None:
        await pool.submit("zero")
        shaky.lose["fail"] = 1
        make_dispatcher(shaky, ToldEngine(EngineError("never"))).run(JOB, 0, INTERACTIVE)
        record = await read_record(ledger)
        assert record.state is JobState.FAILED
        assert shaky.failed["fail"] == 1


async def test_a_dispatcher_that_lingers_hears_what_is_rung_when_redis_is_back(
    pool: Pool, bells: Bells, shaky: ShakyLedger
) -> None:
    await pool.submit("zero", "one")
    dispatcher = make_dispatcher(shaky, ToldEngine(), linger_seconds=1.5)
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        a_while()
        shaky.away = True
        wait_until(lambda: shaky.failed["listen"] > 0)
        shaky.away = False
        bells.ring(1)
    assert len(await pool.scores()) == 2


async def test_a_full_redis_is_no_reason_to_stop(
    pool: Pool, bells: Bells, redis_client: Any, shaky: ShakyLedger
) -> None:
    await pool.submit("zero", "one", "two", "three")
    bells.ring(1, 2, 3)
    with out_of_memory(redis_client):
        make_dispatcher(shaky, ToldEngine(), concurrency=2).run(JOB, 0, INTERACTIVE)
    assert len(await pool.scores()) == 4


async def test_a_redis_that_has_forgotten_its_scripts_is_no_reason_either(
    pool: Pool, bells: Bells, redis_client: Any, shaky: ShakyLedger, store: StoreView
) -> None:
    await pool.submit("zero", "one", "two")
    engine = GuardedEngine()
    dispatcher = make_dispatcher(shaky, engine, concurrency=2)
    bells.ring(1)
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        wait_until(lambda: engine.inside() == {"zero", "one"})
        bells.ring(2)
        redis_client.script_flush()
        engine.let_all_go()
    assert len(await pool.scores()) == 3
    assert not shaky.failed
