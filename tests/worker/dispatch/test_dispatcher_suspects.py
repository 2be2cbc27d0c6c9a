"""A suspect is a shard that was in progress when workers crashed. It is scored alone: only it can count a crash."""

from typing import Any

import pytest

from shared.contracts import WorkClass
from shared.keys import job_keys
from shared.ledger.job_ledger import JobLedger
from tests.shared.support import JOB, StoreView, make_lease, read_record
from tests.worker.support import ManualEngine, Pool, WakeUpSender, in_thread, make_dispatcher, wait_briefly, wait_until
from worker.dispatch.dispatcher import Dispatcher

INTERACTIVE = WorkClass.INTERACTIVE


@pytest.fixture
def engine() -> ManualEngine:
    return ManualEngine()


@pytest.fixture
def dispatcher(pool: Pool, engine: ManualEngine) -> Dispatcher:
    return make_dispatcher(pool.worker_ledger, engine, linger_seconds=0.1)


def mark_suspects(client: Any, *shards: int, job_id: str = JOB) -> None:
    """Mark shards as suspects, as the reconciler does after several crashes."""
    client.hset(job_keys.shards(job_id), mapping={f"{shard}:run_alone": 1 for shard in shards})


def is_leased(store: StoreView, shard: int) -> bool:
    return store.shard(shard)["status"] == "leased"


async def test_a_suspect_is_leased_only_after_all_other_shards_are_reported(
    pool: Pool,
    wake_ups: WakeUpSender,
    store: StoreView,
    redis_client: Any,
    engine: ManualEngine,
    dispatcher: Dispatcher,
) -> None:
    """Otherwise the suspect would count a crash that another shard caused."""
    await pool.submit("zero", "one", "the suspect")
    mark_suspects(redis_client, 2)
    wake_ups.send(1, 2)
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        wait_until(lambda: engine.in_progress() == {"zero", "one"})
        wait_briefly()
        assert not is_leased(store, 2)
        engine.finish("zero")
        wait_until(lambda: engine.in_progress() == {"one"})
        wait_briefly()
        assert not is_leased(store, 2)
        engine.finish("one")
        wait_until(lambda: engine.in_progress() == {"the suspect"})
        assert is_leased(store, 2)
        # The other shards are reported: a crash of the suspect cannot affect them.
        assert [store.shard(shard)["status"] for shard in (0, 1)] == ["done", "done"]
        engine.finish_all()
    assert len(await pool.scores()) == 3


async def test_nothing_else_is_claimed_while_a_suspect_is_scored(
    pool: Pool, wake_ups: WakeUpSender, redis_client: Any, engine: ManualEngine, dispatcher: Dispatcher
) -> None:
    await pool.submit("the suspect", "one", "two")
    mark_suspects(redis_client, 0)
    wake_ups.send(1, 2)
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        wait_until(lambda: engine.in_progress() == {"the suspect"})
        wait_briefly()
        assert engine.in_progress() == {"the suspect"}
        assert wake_ups.waiting() == 2
        engine.finish("the suspect")
        wait_until(lambda: engine.in_progress() == {"one", "two"})
        engine.finish_all()
    assert len(await pool.scores()) == 3


async def test_nothing_else_is_claimed_while_a_suspect_waits(
    pool: Pool, wake_ups: WakeUpSender, redis_client: Any, engine: ManualEngine, dispatcher: Dispatcher
) -> None:
    """Otherwise the suspect would wait forever in a busy worker."""
    await pool.submit("zero", "the suspect", "two")
    mark_suspects(redis_client, 1)
    wake_ups.send(1)
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        wait_until(lambda: engine.in_progress() == {"zero"})
        wait_until(lambda: bool(dispatcher._suspects))
        wake_ups.send(2)
        wait_briefly()
        assert engine.in_progress() == {"zero"}
        engine.finish("zero")
        wait_until(lambda: engine.in_progress() == {"the suspect"})
        engine.finish_all()
    assert [names[-1] for names in engine.starts] == ["zero", "the suspect", "two"]


async def test_suspects_are_scored_one_after_the_other(
    pool: Pool, wake_ups: WakeUpSender, redis_client: Any, engine: ManualEngine, dispatcher: Dispatcher
) -> None:
    await pool.submit("suspect 0", "suspect 1", "suspect 2", "three")
    mark_suspects(redis_client, 0, 1, 2)
    engine.finish_all()
    # One suspect has two messages.
    wake_ups.send(1, 2, 1, 3)
    dispatcher.run(JOB, 0, INTERACTIVE)
    assert len(engine.starts) == 4
    assert all(len(names) == 1 for names in engine.starts if names[-1] != "three")
    assert len(await pool.scores()) == 4


async def test_suspects_in_a_stream_of_shards_are_each_scored_alone_without_starving(
    pool: Pool, wake_ups: WakeUpSender, redis_client: Any, dispatcher: Dispatcher, engine: ManualEngine
) -> None:
    texts = [f"suspect {number}" if number % 10 == 5 else f"text {number}" for number in range(60)]
    suspects = [number for number in range(60) if number % 10 == 5]
    await pool.submit(*texts)
    mark_suspects(redis_client, *suspects)
    wake_ups.send(*range(1, 40))
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        wait_until(lambda: len(engine.in_progress()) > 1)
        engine.finish_all()
        wake_ups.send(*range(40, 60))
    assert len(await pool.scores()) == 60
    assert len(engine.starts) == 60
    not_alone = [names for names in engine.starts if any("suspect" in name for name in names) and len(names) > 1]
    assert not_alone == []
    # A suspect runs before shards that were enqueued much later.
    turns = {names[-1]: turn for turn, names in enumerate(engine.starts)}
    assert turns["suspect 5"] < turns["text 30"]


@pytest.mark.parametrize("change", ["canceled", "held"])
async def test_a_suspect_that_was_canceled_or_leased_elsewhere_does_not_block_other_shards(
    pool: Pool,
    wake_ups: WakeUpSender,
    ledger: JobLedger,
    redis_client: Any,
    engine: ManualEngine,
    dispatcher: Dispatcher,
    change: str,
) -> None:
    await pool.submit("zero", "one", "two")
    await pool.submit("the suspect", job_id="job-2")
    mark_suspects(redis_client, 0, job_id="job-2")
    wake_ups.send(0, job_id="job-2")
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        wait_until(lambda: engine.in_progress() == {"zero"})
        wait_until(lambda: bool(dispatcher._suspects))
        wake_ups.send(1, 2)
        if change == "canceled":
            await ledger.cancel(await read_record(ledger, "job-2"))
        else:
            pool.worker_ledger.claim(make_lease(token="other-token", job_id="job-2"))
        engine.finish_all()
    assert sorted(names[-1] for names in engine.starts) == ["one", "two", "zero"]


async def test_a_waiting_suspect_is_not_claimed_when_the_worker_stops(
    pool: Pool,
    wake_ups: WakeUpSender,
    store: StoreView,
    redis_client: Any,
    engine: ManualEngine,
    dispatcher: Dispatcher,
) -> None:
    await pool.submit("zero", "the suspect")
    mark_suspects(redis_client, 1)
    wake_ups.send(1)
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        wait_until(lambda: engine.in_progress() == {"zero"})
        wait_until(lambda: bool(dispatcher._suspects))
        wait_briefly()
        dispatcher.close()
        engine.finish_all()
    assert [names[-1] for names in engine.starts] == ["zero"]
    assert (store.shard(1)["status"], store.lease(1)) == ("queued", None)
