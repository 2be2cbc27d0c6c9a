"""The simulated pool: it agrees with queueing theory and loses no job."""

import random
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.fleet import Fleet, Outcome, Plan
from bench.scalers import AlwaysOn
from bench.traffic import Arrival
from shared.contracts import WorkClass
from shared.pools.signals import PoolSignals
from tests.shared.support import properties

INTERACTIVE, BATCH = WorkClass.INTERACTIVE, WorkClass.BATCH
PLAN = Plan(tokens_per_second=1000.0, start_seconds=30.0, shard_tokens=2000)
SECOND = 1000
"""Tokens that take a worker one second."""


class Script:
    """Sets the number of workers at given times, and records the signals that it receives."""

    interval = 1.0

    def __init__(self, sizes: dict[float, int], wake_seconds: float | None = None) -> None:
        self.wake_seconds = wake_seconds
        self.seen: list[tuple[float, PoolSignals]] = []
        self._sizes = sizes

    def decide(self, signals: PoolSignals, now: float) -> int:
        self.seen.append((now, signals))
        return [size for at, size in self._sizes.items() if at <= now][-1]


def call(at: float, tokens: int = SECOND) -> Arrival:
    return Arrival(at, 10, tokens, INTERACTIVE)


def job(at: float, tokens: int) -> Arrival:
    return Arrival(at, 100, tokens, BATCH)


def run(arrivals: Sequence[Arrival], sizes: dict[float, int], *, seconds: float = 100.0, warm: int = 0) -> Outcome:
    return Fleet(Script(sizes), PLAN, warm).run(arrivals, seconds)


def test_waits_at_one_worker_are_those_of_queueing_theory() -> None:
    """Poisson arrivals, one server, constant service: the mean wait is load / (2 (1 - load)) services."""
    draw = random.Random(1)
    at, arrivals = 0.0, []
    for _ in range(60_000):
        at += draw.expovariate(0.7)
        arrivals.append(call(at))
    outcome = Fleet(AlwaysOn(1), PLAN, warm=1).run(arrivals, at)
    assert fmean(outcome.waits) == pytest.approx(0.7 / (2 * 0.3), rel=0.05)


def test_worker_seconds_run_from_the_start_of_a_worker_to_its_end() -> None:
    outcome = run([call(5.0)], {0: 0, 6: 1, 50: 0})
    assert outcome.waits == [31.0]
    assert (outcome.starts, outcome.most_workers, outcome.worker_seconds) == (1, 1, 44.0)


@pytest.mark.parametrize(("wake_seconds", "wait"), [(0.3, 30.3), (None, 30.75)])
def test_an_empty_pool_reacts_after_the_wake_time_or_at_the_next_decision(
    wake_seconds: float | None, wait: float
) -> None:
    script = Script({0: 0, 5: 1}, wake_seconds)
    assert Fleet(script, PLAN).run([call(5.25)], 10).waits == [pytest.approx(wait)]


def test_several_workers_share_a_job_and_its_wait_ends_when_its_last_shard_starts() -> None:
    outcome = run([call(0.5, tokens=6000)], {0: 2}, warm=2)
    assert outcome.waits == [2.0], "three shards of two seconds, two workers"


def test_interactive_work_interrupts_batch_work_which_then_resumes() -> None:
    outcome = run([job(1.0, 2000), call(1.5)], {0: 1}, warm=1)
    assert (outcome.waits, outcome.batch) == ([0.0], [3.0])


def test_interactive_work_waits_for_interactive_work() -> None:
    assert run([call(1.0), call(1.25)], {0: 1}, warm=1).waits == [0.0, 0.75]


def test_a_draining_worker_finishes_its_shard() -> None:
    outcome = run([job(1.5, 2000), job(1.5, 2000)], {0: 1, 2: 0, 50: 1}, warm=1)
    assert outcome.batch == [2.0, 50 - 1.5 + 30 + 2], "the second one waits for the next worker"
    assert outcome.worker_seconds == 3.5 + 50


def test_idle_workers_stop_first() -> None:
    outcome = run([call(0.5, tokens=2000)], {0: 3, 1: 1}, warm=3)
    assert outcome.worker_seconds == 1.0 + 1.0 + 100


def test_starting_workers_stop_before_all_others() -> None:
    outcome = run([], {0: 2, 10: 1}, warm=1)
    assert (outcome.starts, outcome.worker_seconds) == (1, 10.0 + 100.0)


def test_the_signals_describe_the_pool() -> None:
    script = Script({0: 2})
    Fleet(script, PLAN, warm=1).run([call(0.5, 1500), job(0.75, 3000)], 3)
    at, signals = script.seen[1]
    assert at == 1.0
    assert (signals.interactive.jobs, signals.interactive.queued_pairs, signals.interactive.queued_tokens) == (
        1,
        10,
        1500,
    )
    assert (signals.batch.jobs, signals.batch.queued_pairs, signals.batch.queued_tokens) == (1, 100, 3000)
    assert (signals.shards, signals.ready, signals.starting, len(signals.busy_workers)) == (3, 1, 1, 1)
    assert signals.idle_seconds == 0.25


def test_unfinished_jobs_are_counted_and_the_simulation_ends() -> None:
    outcome = run([job(1.0, 1000)], {0: 0})
    assert (outcome.unfinished, outcome.batch) == (1, [])


arrivals = st.lists(
    st.builds(
        Arrival,
        st.floats(min_value=0, max_value=300),
        st.integers(min_value=1, max_value=10),
        st.integers(min_value=1, max_value=20_000),
        st.sampled_from(WorkClass),
    ),
    max_size=30,
).map(lambda found: sorted(found, key=lambda arrival: arrival.at))
scripts = st.dictionaries(st.integers(min_value=1, max_value=400), st.integers(min_value=0, max_value=6), max_size=8)


@properties
@given(arrivals=arrivals, sizes=scripts, warm=st.integers(min_value=0, max_value=3))
def test_every_job_is_done_once_however_often_the_pool_is_resized(
    arrivals: list[Arrival], sizes: dict[int, int], warm: int
) -> None:
    script = {0.0: warm, **dict(sorted((float(at), size) for at, size in sizes.items())), 401.0: 1}
    outcome = Fleet(Script(script), PLAN, warm).run(arrivals, 450.0)
    classes = Counter(arrival.work_class for arrival in arrivals)
    assert (len(outcome.waits), len(outcome.batch), outcome.unfinished) == (classes[INTERACTIVE], classes[BATCH], 0)
    assert all(wait >= 0 for wait in outcome.waits)
    work = sum(arrival.tokens for arrival in arrivals) / PLAN.tokens_per_second
    assert outcome.worker_seconds >= work - 1e-6
