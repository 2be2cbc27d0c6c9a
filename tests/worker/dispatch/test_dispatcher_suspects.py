"""A suspect is a shard that was in work when workers died: it is scored without company, and charged alone."""

from typing import Any

import pytest

from shared.contracts import WorkClass
from shared.keys import job_keys
from shared.ledger.job_ledger import JobLedger
from tests.shared.support import JOB, StoreView, make_lease, read_record
from tests.worker.support import GuardedEngine, Pool, WakeUpSender, a_while, in_thread, make_dispatcher, wait_until
from worker.dispatch.dispatcher import Dispatcher

INTERACTIVE = WorkClass.INTERACTIVE


@pytest.fixture
def engine() -> GuardedEngine:
    return GuardedEngine()


@pytest.fixture
def dispatcher(pool: Pool, engine: GuardedEngine) -> Dispatcher:
    return make_dispatcher(pool.worker_ledger, engine, linger_seconds=0.1)


def suspect(client: Any, *shards: int, job_id: str = JOB) -> None:
    """What the reconciler writes after several crashes."""
    client.hset(job_keys.shards(job_id), mapping={f"{shard}:run_alone": 1 for shard in shards})


def is_leased(store: StoreView, shard: int) -> bool:
    return store.shard(shard)["status"] == "leased"


async def test_it_waits_until_all_others_are_done_and_is_not_leased_meanwhile(
    pool: Pool,
    wake_ups: WakeUpSender,
    store: StoreView,
    redis_client: Any,
    engine: GuardedEngine,
    dispatcher: Dispatcher,
) -> None:
    """If one of the others brings the worker down, that is not the suspect's crash."""
    await pool.submit("zero", "one", "the suspect")
    suspect(redis_client, 2)
    wake_ups.send(1, 2)
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        wait_until(lambda: engine.inside() == {"zero", "one"})
        a_while()
        assert not is_leased(store, 2)
        engine.let_go("zero")
        wait_until(lambda: engine.inside() == {"one"})
        a_while()
        assert not is_leased(store, 2)
        engine.let_go("one")
        wait_until(lambda: engine.inside() == {"the suspect"})
        assert is_leased(store, 2)
        # The others are handed in: they too are out of harm's way.
        assert [store.shard(shard)["status"] for shard in (0, 1)] == ["done", "done"]
        engine.let_all_go()
    assert len(await pool.scores()) == 3


async def test_while_it_is_scored_nobody_else_is_taken(
    pool: Pool, wake_ups: WakeUpSender, redis_client: Any, engine: GuardedEngine, dispatcher: Dispatcher
) -> None:
    await pool.submit("the suspect", "one", "two")
    suspect(redis_client, 0)
    wake_ups.send(1, 2)
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        wait_until(lambda: engine.inside() == {"the suspect"})
        a_while()
        assert engine.inside() == {"the suspect"}
        assert wake_ups.waiting() == 2
        engine.let_go("the suspect")
        wait_until(lambda: engine.inside() == {"one", "two"})
        engine.let_all_go()
    assert len(await pool.scores()) == 3


async def test_while_it_waits_nobody_else_is_taken(
    pool: Pool, wake_ups: WakeUpSender, redis_client: Any, engine: GuardedEngine, dispatcher: Dispatcher
) -> None:
    """Or it would wait for ever in a busy worker."""
    await pool.submit("zero", "the suspect", "two")
    suspect(redis_client, 1)
    wake_ups.send(1)
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        wait_until(lambda: engine.inside() == {"zero"})
        wait_until(lambda: wake_ups.waiting() == 0)
        wake_ups.send(2)
        a_while()
        assert wake_ups.waiting() == 1
        engine.let_go("zero")
        wait_until(lambda: engine.inside() == {"the suspect"})
        engine.let_all_go()
    assert [names[-1] for names in engine.entered] == ["zero", "the suspect", "two"]


async def test_several_are_scored_one_after_another(
    pool: Pool, wake_ups: WakeUpSender, redis_client: Any, engine: GuardedEngine, dispatcher: Dispatcher
) -> None:
    await pool.submit("suspect 0", "suspect 1", "suspect 2", "three")
    suspect(redis_client, 0, 1, 2)
    engine.let_all_go()
    # One of them is rung for twice.
    wake_ups.send(1, 2, 1, 3)
    dispatcher.run(JOB, 0, INTERACTIVE)
    assert len(engine.entered) == 4
    assert all(len(names) == 1 for names in engine.entered if names[-1] != "three")
    assert len(await pool.scores()) == 4


async def test_among_a_stream_of_others_each_gets_its_turn_alone_and_nobody_waits_for_ever(
    pool: Pool, wake_ups: WakeUpSender, redis_client: Any, dispatcher: Dispatcher, engine: GuardedEngine
) -> None:
    texts = [f"suspect {number}" if number % 10 == 5 else f"text {number}" for number in range(60)]
    suspects = [number for number in range(60) if number % 10 == 5]
    await pool.submit(*texts)
    suspect(redis_client, *suspects)
    wake_ups.send(*range(1, 40))
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        wait_until(lambda: len(engine.inside()) > 1)
        engine.let_all_go()
        wake_ups.send(*range(40, 60))
    assert len(await pool.scores()) == 60
    assert len(engine.entered) == 60
    crowded = [names for names in engine.entered if any("suspect" in name for name in names) and len(names) > 1]
    assert crowded == []
    # No later than what was rung for well after it.
    turns = {names[-1]: turn for turn, names in enumerate(engine.entered)}
    assert turns["suspect 5"] < turns["text 30"]


@pytest.mark.parametrize("what_came_between", ["canceled", "held"])
async def test_one_that_is_no_longer_to_be_scored_when_its_turn_comes_holds_nobody_up(
    pool: Pool,
    wake_ups: WakeUpSender,
    ledger: JobLedger,
    redis_client: Any,
    engine: GuardedEngine,
    dispatcher: Dispatcher,
    what_came_between: str,
) -> None:
    await pool.submit("zero", "one", "two")
    await pool.submit("the suspect", job_id="job-2")
    suspect(redis_client, 0, job_id="job-2")
    wake_ups.send(0, job_id="job-2")
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        wait_until(lambda: engine.inside() == {"zero"})
        wait_until(lambda: wake_ups.waiting() == 0)
        wake_ups.send(1, 2)
        if what_came_between == "canceled":
            await ledger.cancel(await read_record(ledger, "job-2"))
        else:
            pool.worker_ledger.claim(make_lease(token="somebody else", job_id="job-2"))
        engine.let_all_go()
    assert sorted(names[-1] for names in engine.entered) == ["one", "two", "zero"]


async def test_one_that_waits_when_the_worker_stops_is_left_to_others(
    pool: Pool,
    wake_ups: WakeUpSender,
    store: StoreView,
    redis_client: Any,
    engine: GuardedEngine,
    dispatcher: Dispatcher,
) -> None:
    await pool.submit("zero", "the suspect")
    suspect(redis_client, 1)
    wake_ups.send(1)
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        wait_until(lambda: engine.inside() == {"zero"})
        wait_until(lambda: wake_ups.waiting() == 0)
        a_while()
        dispatcher.close()
        engine.let_all_go()
    assert [names[-1] for names in engine.entered] == ["zero"]
    assert (store.shard(1)["status"], store.lease(1)) == ("queued", None)
