"""Scaling decisions: single cases with their reasons, and properties of all decisions."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.models import PoolSettings
from shared.pools.scaling import LONGEST_BACKOFF_SECONDS, Decision, ScalingState, backing_off_until, decide
from shared.pools.signals import ClassLoad, PoolSignals
from tests.shared.support import properties

NOW = 1_800_000_000.0
RATE = 1000.0
POOL = PoolSettings(max=10)
"""At RATE, one worker finishes 30,000 tokens within the target of 30 s."""


def work(tokens: int, *, running: bool = False) -> ClassLoad:
    """One job with this number of tokens, 100 per pair."""
    pairs = max(tokens // 100, 1)
    if running:
        return ClassLoad(jobs=1, running_pairs=pairs, running_tokens=tokens)
    return ClassLoad(jobs=1, queued_pairs=pairs, queued_tokens=tokens)


def make_signals(*, busy: int = 0, **fields: Any) -> PoolSignals:
    """Signals of an idle pool without workers, changed by `fields`."""
    signals = PoolSignals(
        model="m",
        interactive=ClassLoad(),
        batch=ClassLoad(),
        oldest_seconds=0.0,
        idle_seconds=1000.0,
        shards=0,
        starting=0,
        ready=0,
        draining=0,
        busy_workers=frozenset(f"w{number}" for number in range(busy)),
        tokens_per_second=RATE,
    )
    return replace(signals, **fields)


def desired(
    signals: PoolSignals, pool: PoolSettings = POOL, state: ScalingState | None = None, now: float = NOW
) -> int:
    return decide(signals, pool, state or ScalingState(), now).desired


def run(rounds: list[tuple[float, PoolSignals]], pool: PoolSettings = POOL) -> list[Decision]:
    """One decision for each (seconds after NOW, signals), passing the state on."""
    state = ScalingState()
    decisions = []
    for at, signals in rounds:
        decisions.append(decide(signals, pool, state, NOW + at))
        state = decisions[-1].state
    return decisions


@pytest.mark.parametrize(
    ("signals", "count", "reason"),
    [
        (make_signals(), 0, "no work is outstanding: no worker is needed"),
        (make_signals(interactive=work(1200)), 1, "12 interactive pairs wait: start one worker"),
        (make_signals(interactive=work(50)), 1, "1 interactive pair waits: start one worker"),
        (make_signals(batch=work(1200)), 1, "12 batch pairs wait: start one worker"),
        (make_signals(shards=3), 1, "3 shards wait: start one worker"),
        (make_signals(interactive=ClassLoad(jobs=1)), 1, "0 interactive pairs wait: start one worker"),
        (make_signals(interactive=ClassLoad(running_pairs=1)), 1, "1 interactive pair waits: start one worker"),
        (make_signals(interactive=work(30_000)), 1, "300 interactive pairs wait: start one worker"),
        (
            make_signals(interactive=work(30_001)),
            2,
            "300 interactive pairs wait, 30,001 tokens: 2 workers finish them in 30 s",
        ),
        (
            make_signals(interactive=work(20_000), batch=work(70_000, running=True), ready=1, busy=1),
            3,
            "200 interactive and 700 batch pairs are outstanding, 90,000 tokens: 3 workers finish them in 30 s",
        ),
        (
            make_signals(batch=work(900_000)),
            10,
            "9,000 batch pairs wait, 900,000 tokens: 30 workers finish them in 30 s, but max is 10",
        ),
        (
            make_signals(batch=work(300_100)),
            10,
            "3,001 batch pairs wait, 300,100 tokens: 11 workers finish them in 30 s, but max is 10",
        ),
        (
            make_signals(batch=work(900_000), tokens_per_second=None),
            1,
            "9,000 batch pairs wait: one worker until the throughput is measured",
        ),
        (
            make_signals(interactive=work(100, running=True), ready=1),
            1,
            "1 interactive pair is outstanding: one worker is enough",
        ),
        (make_signals(idle_seconds=120.0, ready=1), 1, "idle for 120 s: one worker stays until 300 s"),
        (make_signals(idle_seconds=120.0, ready=4), 1, "idle for 120 s: one worker stays until 300 s"),
        (make_signals(idle_seconds=120.0, starting=1), 1, "idle for 120 s: one worker stays until 300 s"),
        (make_signals(idle_seconds=120.0, draining=1), 0, "no work is outstanding: no worker is needed"),
        (make_signals(idle_seconds=300.0, ready=4), 0, "idle for 300 s: no worker is needed"),
    ],
)
def test_size_and_reason_follow_from_the_outstanding_work(signals: PoolSignals, count: int, reason: str) -> None:
    decision = decide(signals, POOL, ScalingState(), NOW)
    assert (decision.desired, decision.reason, decision.retry_at) == (count, reason, None)


@pytest.mark.parametrize(
    ("signals", "count", "reason"),
    [
        (make_signals(), 2, "no work is outstanding: no worker is needed, but min is 2"),
        (make_signals(ready=5), 2, "idle for 1000 s: no worker is needed, but min is 2"),
        (
            make_signals(interactive=work(100), ready=2),
            2,
            "1 interactive pair is outstanding: one worker is enough, but min is 2",
        ),
    ],
)
def test_min_workers_always_run(signals: PoolSignals, count: int, reason: str) -> None:
    decision = decide(signals, PoolSettings(min=2, max=10), ScalingState(), NOW)
    assert (decision.desired, decision.reason) == (count, reason)


class TestBatchWakesIsOff:
    """Batch work starts no worker, but keeps running ones."""

    pool = PoolSettings(max=10, batch_wakes=False)

    @pytest.mark.parametrize(
        ("signals", "count", "reason"),
        [
            (
                make_signals(batch=work(900), shards=1),
                0,
                "9 batch pairs wait for a running worker: batch work starts none in this pool",
            ),
            (make_signals(batch=work(900), ready=1), 1, "9 batch pairs are outstanding: one worker is enough"),
            (make_signals(batch=work(900), starting=1), 1, "9 batch pairs are outstanding: one worker is enough"),
            (
                make_signals(batch=work(900_000), ready=3),
                3,
                "9,000 batch pairs are outstanding: batch work keeps 3 running and starts none",
            ),
            (
                make_signals(interactive=work(100), batch=work(900_000)),
                1,
                "1 interactive and 9,000 batch pairs wait: start one worker",
            ),
            (
                make_signals(interactive=work(60_000), batch=work(900_000), ready=1),
                2,
                "600 interactive and 9,000 batch pairs are outstanding, 60,000 tokens: 2 workers finish them in 30 s",
            ),
        ],
    )
    def test_batch_work_keeps_workers_and_starts_none(self, signals: PoolSignals, count: int, reason: str) -> None:
        decision = decide(signals, self.pool, ScalingState(), NOW)
        assert (decision.desired, decision.reason) == (count, reason)


class TestScaleDown:
    def test_need_is_kept_for_the_cooldown(self) -> None:
        much, little = make_signals(interactive=work(90_000), ready=3), make_signals(interactive=work(100), ready=3)
        decisions = run([(0, much), (1, little), (59, little), (60.1, little)])
        assert [decision.desired for decision in decisions] == [3, 3, 3, 1]
        assert decisions[1].reason == "3 workers were needed within the last 60 s"

    def test_highest_need_within_the_cooldown_counts(self) -> None:
        loads = [(0, 90_000), (20, 60_000), (40, 100), (61, 100), (81, 100)]
        rounds = [(float(at), make_signals(interactive=work(tokens), ready=3)) for at, tokens in loads]
        assert [decision.desired for decision in run(rounds)] == [3, 3, 3, 2, 1]

    def test_last_worker_stays_after_the_cooldown_until_idle_seconds(self) -> None:
        rounds = [(0.0, make_signals(interactive=work(90_000), ready=3, idle_seconds=0.0))]
        rounds += [(float(at), make_signals(ready=3, idle_seconds=float(at))) for at in (10, 59, 61, 299, 300)]
        assert [decision.desired for decision in run(rounds)] == [3, 3, 3, 1, 1, 0]

    def test_scaling_to_zero_clears_recent_needs(self) -> None:
        pool = PoolSettings(max=10, idle_seconds=5)
        rounds = [
            (0.0, make_signals(interactive=work(90_000), ready=3)),
            (6.0, make_signals(ready=3, idle_seconds=6.0)),
            (7.0, make_signals(interactive=work(100))),
        ]
        assert [decision.desired for decision in run(rounds, pool)] == [3, 0, 1]

    def test_recent_need_starts_no_worker_without_outstanding_work(self) -> None:
        rounds = [
            (0.0, make_signals(interactive=work(90_000))),
            (1.0, make_signals(idle_seconds=0.5, starting=2)),
            (2.0, make_signals(idle_seconds=1.5)),
        ]
        assert [decision.desired for decision in run(rounds)] == [3, 2, 0]

    def test_busy_workers_are_kept_when_the_backlog_needs_fewer(self) -> None:
        """A pool that keeps up with steady work has no backlog: three of four workers are busy at any moment."""
        steady = make_signals(interactive=work(100), ready=4, busy=3)
        decisions = run([(float(at), steady) for at in range(0, 3600, 10)])
        assert {decision.desired for decision in decisions} == {4}
        assert decisions[-1].reason == "3.0 workers are busy on average: 4 are kept"

    def test_idle_workers_are_not_kept(self) -> None:
        rounds = [(float(at), make_signals(interactive=work(100), ready=4, busy=1)) for at in range(0, 3600, 10)]
        assert run(rounds)[-1].desired == 2

    def test_utilization_starts_no_worker(self) -> None:
        rounds = [(float(at), make_signals(interactive=work(100), ready=1, busy=1)) for at in range(0, 3600, 10)]
        assert {decision.desired for decision in run(rounds)} == {1}

    def test_cooldown_of_zero_ignores_recent_needs(self) -> None:
        pool = PoolSettings(max=10, cooldown_seconds=0)
        loads = [(0, 90_000), (1, 100), (2, 60_000)]
        rounds = [(float(at), make_signals(interactive=work(tokens), ready=3)) for at, tokens in loads]
        assert [decision.desired for decision in run(rounds, pool)] == [3, 1, 2]


class TestIdle:
    def test_idle_time_counts_from_the_first_decision_when_no_job_was_ever_submitted(self) -> None:
        rounds = [(float(at), make_signals(ready=1, idle_seconds=None)) for at in (0, 299, 300)]
        assert [decision.desired for decision in run(rounds)] == [1, 1, 0]

    def test_work_resets_the_idle_time(self) -> None:
        idle, with_work = (
            make_signals(ready=1, idle_seconds=None),
            make_signals(ready=1, idle_seconds=None, interactive=work(100)),
        )
        rounds = [(0.0, idle), (200.0, with_work), (201.0, idle), (400.0, idle), (501.0, idle)]
        assert [decision.desired for decision in run(rounds)] == [1, 1, 1, 1, 0]

    def test_idle_seconds_of_zero_stop_the_worker_at_once(self) -> None:
        assert desired(make_signals(ready=1, idle_seconds=0.0), PoolSettings(idle_seconds=0)) == 0


class TestFailedStarts:
    @pytest.mark.parametrize(("failures", "pause"), [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (5000, 300)])
    def test_each_consecutive_failure_doubles_the_pause(self, failures: int, pause: float) -> None:
        signals = make_signals(interactive=work(100), failures=failures, failed_at=NOW, failure="no GPU")
        decision = decide(signals, POOL, ScalingState(), NOW)
        assert (decision.desired, decision.retry_at) == (0, NOW + pause)
        later = decide(signals, POOL, decision.state, NOW + pause)
        assert (later.desired, later.retry_at) == (1, None)

    def test_reason_includes_the_failure_and_the_time_until_the_next_try(self) -> None:
        signals = make_signals(interactive=work(100), failures=3, failed_at=NOW - 1.5, failure="CUDA out of memory")
        decision = decide(signals, POOL, ScalingState(), NOW)
        assert decision.reason == "3 starts in a row failed (CUDA out of memory): next try in 3 s"

    def test_min_workers_are_not_started_during_a_pause(self) -> None:
        signals = make_signals(failures=1, failed_at=NOW - 0.5, failure=None, ready=1)
        decision = decide(signals, PoolSettings(min=3, max=3), ScalingState(), NOW)
        assert decision.desired == 1
        assert decision.reason == "the last start failed (no reason was reported): next try in 1 s"

    def test_after_the_pause_one_worker_is_tried_until_it_is_ready(self) -> None:
        signals = make_signals(interactive=work(90_000), failures=2, failed_at=NOW - 10, failure="no GPU")
        assert desired(signals) == 1
        assert desired(replace(signals, starting=1)) == 1
        assert desired(replace(signals, starting=2)) == 2, "workers that are starting are not stopped"
        assert desired(replace(signals, ready=1)) == 2
        assert desired(replace(signals, ready=1, failures=0)) == 3

    def test_live_workers_are_kept_during_a_pause(self) -> None:
        signals = make_signals(interactive=work(90_000), ready=2, failures=1, failed_at=NOW)
        assert desired(signals) == 2

    def test_retry_at_is_set_without_outstanding_work(self) -> None:
        signals = make_signals(failures=4, failed_at=NOW - 3, failure="no GPU")
        decision = decide(signals, POOL, ScalingState(), NOW)
        assert (decision.desired, decision.retry_at) == (0, NOW + 5)

    @pytest.mark.parametrize("failed_at", [NOW + 3600, NOW])
    def test_clock_that_is_ahead_does_not_lengthen_the_pause(self, failed_at: float) -> None:
        signals = make_signals(failures=3, failed_at=failed_at)
        assert backing_off_until(signals, NOW) == NOW + 4


def test_needs_beyond_max_are_recorded_as_max() -> None:
    rounds = [(float(at), make_signals(batch=work(900_000 - at * 30_000), ready=10)) for at in range(15)]
    assert run(rounds)[-1].state.recent_needs == ((NOW + 14, 10),)


def test_clock_that_is_set_back_does_not_extend_the_cooldown() -> None:
    much, little = make_signals(interactive=work(90_000), ready=3), make_signals(interactive=work(100), ready=3)
    rounds = [(0.0, much), (-3600.0, little), (-3539.0, little)]
    assert [decision.desired for decision in run(rounds)] == [3, 3, 1]


amounts = st.integers(min_value=0, max_value=10**7)
counts = st.integers(min_value=0, max_value=12)
loads = st.one_of(
    st.just(ClassLoad()),
    st.builds(
        ClassLoad,
        jobs=st.integers(min_value=1, max_value=1000),
        queued_pairs=amounts,
        queued_tokens=amounts,
        running_pairs=amounts,
        running_tokens=amounts,
    ),
)
seconds = st.floats(min_value=0, max_value=10_000)
rates = st.one_of(st.none(), st.floats(min_value=0, max_value=1e6))
pools = st.builds(
    lambda least, more, **rest: PoolSettings(min=least, max=max(least + more, 1), **rest),
    counts,
    counts,
    idle_seconds=seconds,
    target_drain_seconds=st.floats(min_value=1, max_value=3600),
    cooldown_seconds=seconds,
    batch_wakes=st.booleans(),
)
healthy = st.builds(
    make_signals,
    busy=counts,
    interactive=loads,
    batch=loads,
    idle_seconds=st.one_of(st.none(), seconds),
    shards=counts,
    starting=counts,
    ready=counts,
    draining=counts,
    tokens_per_second=rates,
)
anything = st.builds(
    lambda signals, failures, ago: replace(signals, failures=failures, failed_at=NOW - ago),
    healthy,
    counts,
    st.floats(min_value=-100, max_value=1000),
)
histories = st.lists(st.tuples(st.floats(min_value=0.1, max_value=400), anything), max_size=6)


def state_after(history: list[tuple[float, PoolSignals]], pool: PoolSettings) -> ScalingState:
    """The state at NOW after decisions on (seconds until the next decision, signals)."""
    at = NOW - sum(pause for pause, _ in history)
    state = ScalingState()
    for pause, signals in history:
        state = decide(signals, pool, state, at).state
        at += pause
    return state


@properties
@given(history=histories, signals=healthy, pool=pools)
def test_size_is_between_min_and_max(
    history: list[tuple[float, PoolSignals]], signals: PoolSignals, pool: PoolSettings
) -> None:
    decision = decide(signals, pool, state_after(history, pool), NOW)
    assert pool.min <= decision.desired <= pool.max
    assert decision.retry_at is None


@properties
@given(history=histories, signals=anything, pool=pools)
def test_interactive_work_gets_a_worker_except_during_a_pause(
    history: list[tuple[float, PoolSignals]], signals: PoolSignals, pool: PoolSettings
) -> None:
    with_work = replace(signals, interactive=work(100))
    decision = decide(with_work, pool, state_after(history, pool), NOW)
    assert decision.desired >= 1 or decision.retry_at is not None


@properties
@given(signals=anything, history=histories, pool=pools)
def test_failed_starts_allow_at_most_one_additional_worker(
    history: list[tuple[float, PoolSignals]], signals: PoolSignals, pool: PoolSettings
) -> None:
    decision = decide(signals, pool, state_after(history, pool), NOW)
    if signals.failures:
        assert decision.desired <= max(signals.starting + signals.ready, signals.ready + 1)
    if decision.retry_at is not None:
        assert NOW < decision.retry_at <= NOW + LONGEST_BACKOFF_SECONDS
        assert decision.desired <= signals.starting + signals.ready


@properties
@given(
    history=histories,
    signals=anything,
    pool=pools,
    more=st.tuples(amounts, amounts, amounts, amounts),
    classes=st.sampled_from([("interactive",), ("batch",), ("interactive", "batch")]),
)
def test_more_work_never_means_fewer_workers(
    history: list[tuple[float, PoolSignals]],
    signals: PoolSignals,
    pool: PoolSettings,
    more: tuple[int, int, int, int],
    classes: tuple[str, ...],
) -> None:
    state = state_after(history, pool)

    def larger(load: ClassLoad) -> ClassLoad:
        return ClassLoad(
            jobs=load.jobs + 1,
            queued_pairs=load.queued_pairs + more[0],
            queued_tokens=load.queued_tokens + more[1],
            running_pairs=load.running_pairs + more[2],
            running_tokens=load.running_tokens + more[3],
        )

    loaded = signals
    if "interactive" in classes:
        loaded = replace(loaded, interactive=larger(loaded.interactive))
    if "batch" in classes:
        loaded = replace(loaded, batch=larger(loaded.batch))
    assert decide(loaded, pool, state, NOW).desired >= decide(signals, pool, state, NOW).desired


@properties
@given(signals=healthy, pool=pools, step=st.floats(min_value=0.25, max_value=60))
def test_constant_demand_leads_to_a_constant_size(signals: PoolSignals, pool: PoolSettings, step: float) -> None:
    """Each decision takes effect before the next one. The size never grows again after it has shrunk."""
    idle = signals.idle_seconds or 0.0
    step = max(step, (pool.cooldown_seconds + pool.idle_seconds) / 50)
    settled_after = 25 * pool.cooldown_seconds + pool.idle_seconds
    state, sizes, elapsed = ScalingState(), [], 0.0
    while elapsed <= settled_after + 20 * step:
        busy = frozenset(sorted(signals.busy_workers)[: signals.ready])
        signals = replace(signals, busy_workers=busy, idle_seconds=idle + elapsed)
        decision = decide(signals, pool, state, NOW + elapsed)
        state, signals = decision.state, replace(signals, starting=0, ready=decision.desired)
        sizes.append((elapsed, decision.desired))
        elapsed += step
    later = [count for _, count in sizes[1:]]
    assert later == sorted(later, reverse=True)
    assert len({count for at, count in sizes if at > settled_after}) == 1


@properties
@given(signals=anything, pool=pools)
def test_decision_without_state_equals_the_first_decision_with_state(signals: PoolSignals, pool: PoolSettings) -> None:
    """The API decides without state; repeating the decision with its state changes nothing."""
    alone = decide(signals, pool, ScalingState(), NOW)
    assert alone == decide(signals, pool, ScalingState(), NOW)
    again = decide(signals, pool, alone.state, NOW)
    assert (again.desired, again.retry_at) == (alone.desired, alone.retry_at)


@properties
@given(history=st.lists(st.tuples(st.floats(min_value=0.1, max_value=40), anything), max_size=30), pool=pools)
def test_state_stays_small(history: list[tuple[float, PoolSignals]], pool: PoolSettings) -> None:
    needs = state_after(history, pool).recent_needs
    assert [count for _, count in needs] == sorted({count for _, count in needs}, reverse=True)
    assert len(needs) <= pool.max + 1
