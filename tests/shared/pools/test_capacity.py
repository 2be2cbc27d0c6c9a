"""Who gets a machine's worker slots when the pools together want more than there are."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.models import PoolSettings
from shared.pools.capacity import PoolDemand, allocate_slots, pool_demand
from shared.pools.signals import ClassLoad, PoolSignals
from tests.shared.support import properties


def asleep(desired: int = 1) -> PoolDemand:
    """Has no worker, and interactive work waits for some."""
    return PoolDemand(desired=desired, interactive=True, waiting_seconds=1.0)


def idle(seconds: float, workers: int = 1) -> PoolDemand:
    """Keeps its workers until its idle time is over."""
    return PoolDemand(desired=workers, alive=workers, idle_seconds=seconds, cooldown_seconds=60.0)


def batch(desired: int = 1, alive: int = 0) -> PoolDemand:
    return PoolDemand(desired=desired, alive=alive, batch=True)


@pytest.mark.parametrize(
    ("wanted", "capacity", "shares"),
    [
        pytest.param({}, 2, {}, id="nobody wants anything"),
        pytest.param({"a": asleep(), "b": batch(2)}, 4, {"a": 1, "b": 2}, id="there is room for all"),
        pytest.param({"a": asleep(desired=4)}, 2, {"a": 2}, id="a pool cannot be larger than the machine"),
        pytest.param({"a": asleep(), "b": batch()}, 1, {"a": 1, "b": 0}, id="interactive work goes first"),
        pytest.param(
            {"a": batch(4), "b": asleep(desired=4)},
            4,
            {"a": 0, "b": 4},
            id="and takes all that it needs of what is free",
        ),
        pytest.param(
            {"a": asleep(desired=4), "b": asleep(desired=4)}, 4, {"a": 2, "b": 2}, id="equals get one after the other"
        ),
        pytest.param(
            {"a": asleep(desired=3), "b": replace(asleep(desired=3), waiting_seconds=9.0)},
            3,
            {"a": 1, "b": 2},
            id="the odd one goes to who has waited longer",
        ),
        pytest.param(
            {"a": asleep(desired=3), "b": replace(asleep(desired=3), waiting_seconds=9.0)},
            4,
            {"a": 2, "b": 2},
            id="but waiting does not make a pool's turn come twice",
        ),
        pytest.param(
            {"a": replace(batch(3, alive=1), waiting_seconds=9.0), "b": batch()},
            2,
            {"a": 1, "b": 1},
            id="a first worker before another pool's second",
        ),
        pytest.param(
            {"a": PoolDemand(desired=2, promised=2), "b": asleep()},
            2,
            {"a": 2, "b": 0},
            id="what min promises comes before all",
        ),
        pytest.param(
            {"a": idle(5), "b": batch()}, 1, {"a": 1, "b": 0}, id="batch work waits for an idle pool at first"
        ),
        pytest.param({"a": asleep()}, 0, {"a": 0}, id="a machine without slots"),
    ],
)
def test_slots_go_by_need(wanted: dict[str, PoolDemand], capacity: int, shares: dict[str, int]) -> None:
    assert allocate_slots(wanted, capacity) == shares


class TestGivingWay:
    """A pool that has to go drains first; the other one's worker starts in the free slot, a round later."""

    @pytest.mark.parametrize(
        ("wanted", "capacity", "victim"),
        [
            pytest.param({"new": asleep(), "old": idle(30), "recent": idle(1)}, 2, "old", id="the least recently used"),
            pytest.param({"new": asleep(), "only": idle(0)}, 1, "only", id="however short its quiet is"),
            pytest.param({"new": asleep(), "long": batch(alive=1)}, 1, "long", id="batch work gives its shards back"),
            pytest.param({"new": asleep(), "two": batch(2, alive=2)}, 2, "two", id="one of several workers"),
            pytest.param(
                {"new": asleep(), "two": replace(batch(2, alive=2), interactive=True)},
                2,
                "two",
                id="the second of a pool",
            ),
            pytest.param(
                {"new": batch(), "quiet": idle(61)}, 1, "quiet", id="for batch work once it was quiet for long"
            ),
            pytest.param(
                {"busy": PoolDemand(desired=2, alive=1, interactive=True), "quiet": idle(1)},
                2,
                "quiet",
                id="for a second worker",
            ),
        ],
    )
    def test_to_interactive_work(self, wanted: dict[str, PoolDemand], capacity: int, victim: str) -> None:
        before = allocate_slots(wanted, capacity)
        assert before[victim] == wanted[victim].alive - 1
        winner = next(iter(wanted))
        assert before[winner] == wanted[winner].alive

        left = replace(wanted[victim], alive=before[victim], draining=1)
        assert allocate_slots({**wanted, victim: left}, capacity)[winner] == wanted[winner].alive

        gone = replace(left, draining=0)
        assert allocate_slots({**wanted, victim: gone}, capacity)[winner] == wanted[winner].alive + 1

    @pytest.mark.parametrize(
        "wanted",
        [
            pytest.param({"new": batch(), "works": batch(alive=1)}, id="batch for batch"),
            pytest.param(
                {"new": batch(), "works": PoolDemand(desired=1, alive=1, interactive=True)}, id="interactive for batch"
            ),
            pytest.param(
                {"new": asleep(), "works": PoolDemand(desired=1, alive=1, interactive=True)},
                id="interactive for interactive",
            ),
            pytest.param(
                {"new": asleep(), "always": PoolDemand(desired=1, promised=1, alive=1, idle_seconds=999)}, id="min"
            ),
        ],
    )
    def test_is_never_asked_of_a_pool(self, wanted: dict[str, PoolDemand]) -> None:
        new, other = wanted
        assert allocate_slots(wanted, 1) == {new: 0, other: 1}


def test_a_wish_is_made_of_what_is_seen() -> None:
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
        promised=2,
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
    assert pool_demand(signals, pool, 1).promised == 1, "failed starts are waited out, and min with them"


numbers = st.integers(min_value=0, max_value=5)
wishes = st.builds(
    PoolDemand,
    desired=numbers,
    promised=st.just(0),
    alive=numbers,
    draining=st.integers(min_value=0, max_value=2),
    interactive=st.booleans(),
    batch=st.booleans(),
    idle_seconds=st.floats(min_value=0, max_value=200),
    waiting_seconds=st.floats(min_value=0, max_value=200),
    cooldown_seconds=st.just(60.0),
)
machines = st.dictionaries(st.sampled_from("abcde"), wishes, min_size=1)


@properties
@given(wanted=machines, spare=st.integers(min_value=-3, max_value=5))
def test_what_runs_drains_and_starts_fits_the_machine(wanted: dict[str, PoolDemand], spare: int) -> None:
    occupied = sum(pool.occupied for pool in wanted.values())
    capacity = max(occupied + spare, 0)
    shares = allocate_slots(wanted, capacity)
    starts = sum(max(shares[name] - pool.alive, 0) for name, pool in wanted.items())
    assert all(0 <= shares[name] <= pool.desired for name, pool in wanted.items())
    assert sum(shares.values()) <= capacity
    assert starts <= max(capacity - occupied, 0)


@properties
@given(wanted=machines, capacity=st.integers(min_value=0, max_value=12))
def test_batch_work_stops_no_pool_that_works(wanted: dict[str, PoolDemand], capacity: int) -> None:
    """With only batch work and idle pools about, what works keeps its workers, as far as they ever fitted."""
    calm = {name: replace(pool, interactive=False) for name, pool in wanted.items()}
    held = {name: min(pool.desired, pool.alive) for name, pool in calm.items() if pool.batch}
    shares = allocate_slots(calm, capacity)
    if sum(held.values()) <= capacity:
        assert all(shares[name] >= count for name, count in held.items())


@properties
@given(wanted=machines, capacity=st.integers(min_value=1, max_value=12))
def test_it_comes_to_rest(wanted: dict[str, PoolDemand], capacity: int) -> None:
    """As long as the wishes stay, workers that drain are soon gone and what is granted is soon there: then nobody
    is stopped or started any more, and no slot is empty that somebody wants."""
    for _ in range(len(wanted) + 2):
        shares = allocate_slots(wanted, capacity)
        wanted = {name: replace(pool, alive=shares[name], draining=0) for name, pool in wanted.items()}
    assert allocate_slots(wanted, capacity) == shares
    assert sum(shares.values()) == min(capacity, sum(pool.desired for pool in wanted.values()))
