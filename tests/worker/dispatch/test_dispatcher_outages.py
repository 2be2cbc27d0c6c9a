"""Redis is unreachable or a reply is lost: the dispatcher keeps its shards and reports each exactly once."""

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
    ManualEngine,
    Pool,
    ScriptedEngine,
    UnreliableLedger,
    WakeUpSender,
    in_thread,
    make_dispatcher,
    wait_briefly,
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
def short_retry_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.dispatch.result_reporter, "_STORE_RETRY_SECONDS", (0.005, 0.01))
    monkeypatch.setattr(worker.dispatch.result_reporter, "FINAL_RETRY_SECONDS", 0.3)


class FailingEngine(ManualEngine):
    """A manual engine that raises an error for some batches after they are finished."""

    def __init__(self, errors: dict[str, Exception]) -> None:
        super().__init__()
        self._errors = errors

    def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
        scores = super().score(batch, cancellation)
        if error := self._errors.get(batch.documents[0]):
            raise error
        return scores


class TestClaims:
    async def test_an_outage_at_the_first_claim_fails_the_task(
        self, pool: Pool, unreliable_ledger: UnreliableLedger
    ) -> None:
        await pool.submit("zero")
        dispatcher = make_dispatcher(unreliable_ledger, ScriptedEngine())
        unreliable_ledger.unreachable = True
        with pytest.raises(StoreUnavailable):
            dispatcher.run(JOB, 0, INTERACTIVE)
        unreliable_ledger.unreachable = False
        dispatcher.run(JOB, 0, INTERACTIVE)
        assert await pool.scores() == [[0.0]]

    async def test_a_first_claim_with_a_lost_reply_affects_one_shard(
        self, pool: Pool, wake_ups: WakeUpSender, store: StoreView, unreliable_ledger: UnreliableLedger
    ) -> None:
        """Nobody repeats it: its shard counts a crash when its lease expires."""
        await pool.submit("zero", "one", "two")
        wake_ups.send(1, 2)
        unreliable_ledger.lost_replies["finish_and_claim"] = 1
        with pytest.raises(StoreUnavailable):
            make_dispatcher(unreliable_ledger, ScriptedEngine()).run(JOB, 0, INTERACTIVE)
        assert [store.shard(shard)["status"] for shard in range(3)] == ["leased", "queued", "queued"]

    async def test_a_later_claim_with_a_lost_reply_is_repeated(
        self, pool: Pool, wake_ups: WakeUpSender, store: StoreView, unreliable_ledger: UnreliableLedger
    ) -> None:
        """The shards are leased already. Without the repetition each would count a crash."""
        await pool.submit("zero", "one", "two")
        engine = ManualEngine()
        dispatcher = make_dispatcher(unreliable_ledger, engine)
        with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
            wait_until(lambda: engine.in_progress() == {"zero"})
            unreliable_ledger.lost_replies["finish_and_claim"] = 3
            wake_ups.send(1, 2)
            wait_until(lambda: len(engine.in_progress()) == 3)
            engine.finish_all()
        assert unreliable_ledger.failures["finish_and_claim"] == 3
        assert len(await pool.scores()) == 3
        assert [store.shard(shard)["finishes_accepted"] for shard in range(3)] == ["1", "1", "1"]

    async def test_a_claim_of_a_suspect_with_a_lost_reply_is_repeated(
        self, pool: Pool, wake_ups: WakeUpSender, redis_client: Any, unreliable_ledger: UnreliableLedger
    ) -> None:
        await pool.submit("zero", "the suspect", "two")
        redis_client.hset(job_keys.shards(JOB), "1:run_alone", 1)
        wake_ups.send(1)
        engine = ManualEngine()
        dispatcher = make_dispatcher(unreliable_ledger, engine)
        with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
            wait_until(lambda: engine.in_progress() == {"zero"})
            wait_until(lambda: bool(dispatcher._suspects))
            unreliable_ledger.lost_replies["claim"] = 2
            wake_ups.send(2)
            engine.finish_all()
        assert [names for names in engine.starts if "the suspect" in names] == [("the suspect",)]
        assert len(engine.batches) >= 2

    async def test_a_stopping_worker_does_not_wait_for_its_claim(
        self, pool: Pool, wake_ups: WakeUpSender, unreliable_ledger: UnreliableLedger
    ) -> None:
        await pool.submit("zero", "one")
        engine = ManualEngine()
        dispatcher = make_dispatcher(unreliable_ledger, engine)
        with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)) as running:
            wait_until(lambda: engine.in_progress() == {"zero"})
            unreliable_ledger.lost_replies["finish_and_claim"] = 10**9
            wake_ups.send(1)
            wait_until(lambda: unreliable_ledger.failures["finish_and_claim"] > 0)
            engine.finish_all()
            wait_briefly()
            assert not running.done()
            dispatcher.stop_waiting()
        assert [names[-1] for names in engine.starts] == ["zero"]


class TestReports:
    async def test_scores_are_reported_after_an_outage_and_their_leases_are_renewed_meanwhile(
        self,
        pool: Pool,
        ledger: JobLedger,
        store: StoreView,
        redis_client: Any,
        redis_url: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(worker.dispatch.leases, "RENEW_SECONDS", 0.05)
        unreliable_ledger = UnreliableLedger(redis_client, MessageBuilder(make_celery(redis_url)), lease_seconds=0.5)
        leases = LeaseKeeper(unreliable_ledger)
        await pool.submit("zero")
        engine = ManualEngine()
        dispatcher = make_dispatcher(unreliable_ledger, engine, leases)
        leases.start()
        try:
            with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
                wait_until(lambda: engine.in_progress() == {"zero"})
                unreliable_ledger.unreachable = True
                engine.finish_all()
                until = time.monotonic() + 1.2
                while time.monotonic() < until:
                    store.make_due()
                    assert await ledger.reconcile(MODEL) == []
                    wait_briefly(0.05)
                assert unreliable_ledger.failures["finish_and_claim"] > 3
                unreliable_ledger.unreachable = False
        finally:
            leases.stop()
        assert await pool.scores() == [[0.0]]
        assert store.shard()["finishes_accepted"] == "1"

    async def test_scores_with_a_lost_reply_are_accepted_once(
        self, pool: Pool, store: StoreView, unreliable_ledger: UnreliableLedger
    ) -> None:
        await pool.submit("zero", "one")
        leases = LeaseKeeper(unreliable_ledger)
        engine = ManualEngine()
        dispatcher = make_dispatcher(unreliable_ledger, engine, leases)
        with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
            wait_until(lambda: engine.in_progress() == {"zero"})
            unreliable_ledger.lost_replies["finish_and_claim"] = 2
            engine.finish_all()
        assert store.shard()["finishes_accepted"] == "1"
        assert unreliable_ledger.failures["finish_and_claim"] == 2
        assert leases.release_all() == 0

    async def test_a_stopping_worker_does_not_wait_for_its_reports(
        self, pool: Pool, ledger: JobLedger, unreliable_ledger: UnreliableLedger
    ) -> None:
        """Its leases expire, and another worker scores the shards."""
        await pool.submit("zero", "one")
        engine = ManualEngine()
        leases = LeaseKeeper(unreliable_ledger)
        dispatcher = make_dispatcher(unreliable_ledger, engine, leases)
        with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)) as running:
            wait_until(lambda: engine.in_progress() == {"zero"})
            unreliable_ledger.unreachable = True
            engine.finish_all()
            wait_briefly()
            assert not running.done()
            stopped_at = time.monotonic()
            dispatcher.stop_waiting()
        assert time.monotonic() - stopped_at < 3
        assert leases.release_all() == 0
        assert (await read_record(ledger)).status is JobStatus.RUNNING

    async def test_a_closed_dispatcher_retries_its_reports(
        self, pool: Pool, unreliable_ledger: UnreliableLedger
    ) -> None:
        await pool.submit("zero")
        engine = ManualEngine()
        dispatcher = make_dispatcher(unreliable_ledger, engine)
        with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
            wait_until(lambda: engine.in_progress() == {"zero"})
            unreliable_ledger.unreachable = True
            engine.finish_all()
            wait_until(lambda: unreliable_ledger.failures["finish_and_claim"] > 0)
            dispatcher.close()
            unreliable_ledger.unreachable = False
        assert await pool.scores() == [[0.0]]

    @pytest.mark.parametrize(
        ("error", "call", "expected"),
        [
            (EngineDied("it died"), "release", {"status": "queued", "resends": "0"}),
            (TransientEngineError("not now"), "retry_later", {"status": "queued", "resends": "0", "retries": "1"}),
        ],
    )
    async def test_a_release_or_retry_with_a_lost_reply_takes_effect_once_and_no_message_is_lost(
        self,
        pool: Pool,
        wake_ups: WakeUpSender,
        store: StoreView,
        unreliable_ledger: UnreliableLedger,
        error: Exception,
        call: str,
        expected: dict[str, str],
    ) -> None:
        """One round reports two shards and receives a third one. Then the reply to the first report is lost twice."""
        await pool.submit("zero", job_id="job-2")
        await pool.submit("one", "two")
        engine = FailingEngine({"zero": error})
        dispatcher = make_dispatcher(unreliable_ledger, engine, concurrency=2)
        wake_ups.send(0, job_id="job-2")
        wake_ups.send(0)
        with in_thread(lambda: dispatcher.run("job-2", 0, INTERACTIVE)):
            wait_until(lambda: engine.in_progress() == {"zero", "one"})
            unreliable_ledger.lost_replies[call] = 2
            wake_ups.send(1)
            engine.finish_all()
        assert unreliable_ledger.failures[call] == 2
        assert store.shard(job_id="job-2") == expected
        enqueued = [read_message(message) for message in store.messages()]
        assert enqueued.count(("job-2", 0)) <= 1
        # A worker whose engine died claims nothing more.
        assert enqueued.count((JOB, 1)) == 1 or len(await pool.scores()) == 2

    async def test_a_failure_with_a_lost_reply_fails_the_job_once(
        self, pool: Pool, ledger: JobLedger, unreliable_ledger: UnreliableLedger
    ) -> None:
        await pool.submit("zero")
        unreliable_ledger.lost_replies["fail"] = 1
        make_dispatcher(unreliable_ledger, ScriptedEngine(EngineError("never"))).run(JOB, 0, INTERACTIVE)
        record = await read_record(ledger)
        assert record.status is JobStatus.FAILED
        assert unreliable_ledger.failures["fail"] == 1


async def test_a_lingering_dispatcher_receives_messages_after_an_outage(
    pool: Pool, wake_ups: WakeUpSender, unreliable_ledger: UnreliableLedger
) -> None:
    await pool.submit("zero", "one")
    dispatcher = make_dispatcher(unreliable_ledger, ScriptedEngine(), linger_seconds=1.5)
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        wait_briefly()
        unreliable_ledger.unreachable = True
        wait_until(lambda: unreliable_ledger.failures["wait_for_wake_up"] > 0)
        unreliable_ledger.unreachable = False
        wake_ups.send(1)
    assert len(await pool.scores()) == 2


async def test_work_continues_while_redis_is_out_of_memory(
    pool: Pool, wake_ups: WakeUpSender, redis_client: Any, unreliable_ledger: UnreliableLedger
) -> None:
    await pool.submit("zero", "one", "two", "three")
    wake_ups.send(1, 2, 3)
    with out_of_memory(redis_client):
        make_dispatcher(unreliable_ledger, ScriptedEngine(), concurrency=2).run(JOB, 0, INTERACTIVE)
    assert len(await pool.scores()) == 4


async def test_work_continues_after_redis_has_lost_its_scripts(
    pool: Pool, wake_ups: WakeUpSender, redis_client: Any, unreliable_ledger: UnreliableLedger, store: StoreView
) -> None:
    await pool.submit("zero", "one", "two")
    engine = ManualEngine()
    dispatcher = make_dispatcher(unreliable_ledger, engine, concurrency=2)
    wake_ups.send(1)
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        wait_until(lambda: engine.in_progress() == {"zero", "one"})
        wake_ups.send(2)
        redis_client.script_flush()
        engine.finish_all()
    assert len(await pool.scores()) == 3
    assert not unreliable_ledger.failures
