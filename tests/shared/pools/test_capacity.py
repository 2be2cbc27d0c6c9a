"""How the worker slots of a machine are divided when the pools together want more than it has."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.models import PoolSettings
from shared.pools.capacity import PoolDemand, allocate_slots, pool_demand
from shared.pools.signals import ClassLoad, PoolSignals
from tests.shared.support import properties


def cold(desired: int = 1) -> PoolDemand:
    """A pool without workers that has interactive work."""
    return PoolDemand(desired=desired, interactive=True, waiting_seconds=1.0)


def idle(seconds: float, workers: int = 1) -> PoolDemand:
    """A pool without work that keeps its workers until its idle time is over."""
    return PoolDemand(desired=workers, alive=workers, idle_seconds=seconds, cooldown_seconds=60.0)


def batch(desired: int = 1, alive: int = 0) -> PoolDemand:
    return PoolDemand(desired=desired, alive=alive, batch=True)


@pytest.mark.parametrize(
    ("demands", "capacity", "shares"),
    [
        pytest.param({}, 2, {}, id="no pools"),
        pytest.param({"a": cold(), "b": batch(2)}, 4, {"a": 1, "b": 2}, id="enough slots for all"),
        pytest.param({"a": cold(desired=4)}, 2, {"a": 2}, id="a pool is not larger than the machine"),
        pytest.param({"a": cold(), "b": batch()}, 1, {"a": 1, "b": 0}, id="interactive before batch"),
        pytest.param(
            {"a": batch(4), "b": cold(desired=4)},
            4,
            {"a": 0, "b": 4},
            id="interactive work gets all free slots that it needs",
        ),
        pytest.param(
            {"a": cold(desired=4), "b": cold(desired=4)}, 4, {"a": 2, "b": 2}, id="equal pools get slots in turn"
        ),
        pytest.param(
            {"a": cold(desired=3), "b": replace(cold(desired=3), waiting_seconds=9.0)},
            3,
            {"a": 1, "b": 2},
            id="the odd slot goes to the pool that has waited longer",
        ),
        pytest.param(
            {"a": cold(desired=3), "b": replace(cold(desired=3), waiting_seconds=9.0)},
            4,
            {"a": 2, "b": 2},
            id="waiting longer does not give a pool two turns",
        ),
        pytest.param(
            {"a": replace(batch(3, alive=1), waiting_seconds=9.0), "b": batch()},
            2,
            {"a": 1, "b": 1},
            id="first worker before the second worker of another pool",
        ),
        pytest.param(
            {"a": PoolDemand(desired=2, guaranteed=2), "b": cold()},
            2,
            {"a": 2, "b": 0},
            id="min comes first",
        ),
        pytest.param(
            {"a": idle(5), "b": batch()},
            1,
            {"a": 1, "b": 0},
            id="batch work does not take the slot of a recently used pool",
        ),
        pytest.param({"a": cold()}, 0, {"a": 0}, id="no slots"),
    ],
)
def test_slots_are_allocated_by_rank(demands: dict[str, PoolDemand], capacity: int, shares: dict[str, int]) -> None:
    assert allocate_slots(demands, capacity) == shares


class TestReplacement:
    """A pool that loses a slot drains its worker first; the other pool gets the free slot in a later round."""

    @pytest.mark.parametrize(
        ("demands", "capacity", "victim"),
        [
            pytest.param(
                {"new": cold(), "old": idle(30), "recent": idle(1)}, 2, "old", id="the least recently used pool"
            ),
            pytest.param({"new": cold(), "only": idle(0)}, 1, "only", id="an idle pool before its cooldown ends"),
            pytest.param({"new": cold(), "long": batch(alive=1)}, 1, "long", id="a pool with batch work only"),
            pytest.param({"new": cold(), "two": batch(2, alive=2)}, 2, "two", id="one of several batch workers"),
            pytest.param(
                {"new": cold(), "two": replace(batch(2, alive=2), interactive=True)},
                2,
                "two",
                id="a second worker",
            ),
            pytest.param(
                {"new": batch(), "unused": idle(61)}, 1, "unused", id="for batch work, an idle pool after its cooldown"
            ),
            pytest.param(
                {"busy": PoolDemand(desired=2, alive=1, interactive=True), "unused": idle(1)},
                2,
                "unused",
                id="for a second interactive worker",
            ),
        ],
    )
    def test_worker_is_drained_and_replaced_when_its_slot_is_free(
        self, demands: dict[str, PoolDemand], capacity: int, victim: str
    ) -> None:
        before = allocate_slots(demands, capacity)
        assert before[victim] == demands[victim].alive - 1
        winner = next(iter(demands))
        assert before[winner] == demands[winner].alive

        draining = replace(demands[victim], alive=before[victim], draining=1)
        assert allocate_slots({**demands, victim: draining}, capacity)[winner] == demands[winner].alive

        exited = replace(draining, draining=0)
        assert allocate_slots({**demands, victim: exited}, capacity)[winner] == demands[winner].alive + 1

    @pytest.mark.parametrize(
        "demands",
        [
            pytest.param({"new": batch(), "works": batch(alive=1)}, id="batch for batch"),
            pytest.param(
                {"new": batch(), "works": PoolDemand(desired=1, alive=1, interactive=True)}, id="interactive for batch"
            ),
            pytest.param(
                {"new": cold(), "works": PoolDemand(desired=1, alive=1, interactive=True)},
                id="interactive for interactive",
            ),
            pytest.param(
                {"new": cold(), "always": PoolDemand(desired=1, guaranteed=1, alive=1, idle_seconds=999)}, id="min"
            ),
        ],
    )
    def test_worker_keeps_its_slot(self, demands: dict[str, PoolDemand]) -> None:
        new, other = demands
        assert allocate_slots(demands, 1) == {new: 0, other: 1}


def test_demand_is_computed_from_signals_and_settings() -> None:
    signals = PoolSignals(
        model="m",
        interactive=ClassLoad(),
        batch=ClassLoad(jobs=1, queued_pairs=1, queued_tokens=1),
        oldest_seconds=7.0,
        idle_seconds=5.0,
        shards=1,
        starting=1,
        ready=2,
        draining=1,
    )
    pool = PoolSettings(min=2, max=5, cooldown_seconds=30)
    expected = PoolDemand(
        desired=4,
        guaranteed=2,
        alive=3,
        draining=1,
        batch=True,
        idle_seconds=5.0,
        waiting_seconds=7.0,
        cooldown_seconds=30.0,
    )
    assert pool_demand(signals, pool, 4) == expected
    assert pool_demand(replace(signals, interactive=ClassLoad(jobs=1)), pool, 1).interactive
    assert pool_demand(replace(signals, idle_seconds=None), pool, 1).idle_seconds == float("inf")
    assert pool_demand(signals, pool, 1).guaranteed == 1, "min guarantees no worker during a pause after failed starts"


numbers = st.integers(min_value=0, max_value=5)
demand_strategy = st.builds(
    PoolDemand,
    desired=numbers,
    guaranteed=st.just(0),
    alive=numbers,
    draining=st.integers(min_value=0, max_value=2),
    interactive=st.booleans(),
    batch=st.booleans(),
    idle_seconds=st.floats(min_value=0, max_value=200),
    waiting_seconds=st.floats(min_value=0, max_value=200),
    cooldown_seconds=st.just(60.0),
)
machines = st.dictionaries(st.sampled_from("abcde"), demand_strategy, min_size=1)


@properties
@given(demands=machines, spare=st.integers(min_value=-3, max_value=5))
def test_running_draining_and_new_workers_fit_the_machine(demands: dict[str, PoolDemand], spare: int) -> None:
    occupied = sum(pool.occupied for pool in demands.values())
    capacity = max(occupied + spare, 0)
    shares = allocate_slots(demands, capacity)
    starts = sum(max(shares[name] - pool.alive, 0) for name, pool in demands.items())
    assert all(0 <= shares[name] <= pool.desired for name, pool in demands.items())
    assert sum(shares.values()) <= capacity
    assert starts <= max(capacity - occupied, 0)


@properties
@given(demands=machines, capacity=st.integers(min_value=0, max_value=12))
def test_batch_work_stops_no_pool_with_work(demands: dict[str, PoolDemand], capacity: int) -> None:
    """Without interactive work, pools with work keep their workers as long as these fit the machine."""
    no_interactive = {name: replace(pool, interactive=False) for name, pool in demands.items()}
    held = {name: min(pool.desired, pool.alive) for name, pool in no_interactive.items() if pool.batch}
    shares = allocate_slots(no_interactive, capacity)
    if sum(held.values()) <= capacity:
        assert all(shares[name] >= count for name, count in held.items())


@properties
@given(demands=machines, capacity=st.integers(min_value=1, max_value=12))
def test_allocation_becomes_stable(demands: dict[str, PoolDemand], capacity: int) -> None:
    """With constant demands, starts and stops end after some rounds, and no slot that a pool wants stays free."""
    for _ in range(len(demands) + 2):
        shares = allocate_slots(demands, capacity)
        demands = {name: replace(pool, alive=shares[name], draining=0) for name, pool in demands.items()}
    assert allocate_slots(demands, capacity) == shares
    assert sum(shares.values()) == min(capacity, sum(pool.desired for pool in demands.values()))
