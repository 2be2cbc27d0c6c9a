"""How many workers a pool should have: what is decided in which case, and what holds in all of them."""

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
"""At RATE, a worker brings 30,000 tokens to their end in the 30 s that are wanted."""


def work(tokens: int, *, running: bool = False) -> ClassLoad:
    """One job of so many tokens, a hundred of them in a pair."""
    pairs = max(tokens // 100, 1)
    if running:
        return ClassLoad(jobs=1, running_pairs=pairs, running_tokens=tokens)
    return ClassLoad(jobs=1, queued_pairs=pairs, queued_tokens=tokens)


def seen(*, busy: int = 0, **fields: Any) -> PoolSignals:
    """Signals of an idle pool without workers, but for what is given."""
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
    signals: PoolSignals, pool: PoolSettings = POOL, memory: ScalingState | None = None, now: float = NOW
) -> int:
    return decide(signals, pool, memory or ScalingState(), now).desired


def run(rounds: list[tuple[float, PoolSignals]], pool: PoolSettings = POOL) -> list[Decision]:
    """Decide again and again, each time with what was remembered; the times are seconds after NOW."""
    memory = ScalingState()
    decisions = []
    for at, signals in rounds:
        decisions.append(decide(signals, pool, memory, NOW + at))
        memory = decisions[-1].memory
    return decisions


@pytest.mark.parametrize(
    ("signals", "count", "reason"),
    [
        (seen(), 0, "nothing is outstanding: no worker is needed"),
        (seen(interactive=work(1200)), 1, "12 interactive pairs wait: wake one worker"),
        (seen(interactive=work(50)), 1, "1 interactive pair waits: wake one worker"),
        (seen(batch=work(1200)), 1, "12 batch pairs wait: wake one worker"),
        (seen(shards=3), 1, "3 shards wait: wake one worker"),
        (seen(interactive=ClassLoad(jobs=1)), 1, "0 interactive pairs wait: wake one worker"),
        (seen(interactive=ClassLoad(running_pairs=1)), 1, "1 interactive pair waits: wake one worker"),
        (seen(interactive=work(30_000)), 1, "300 interactive pairs wait: wake one worker"),
        (
            seen(interactive=work(30_001)),
            2,
            "300 interactive pairs wait, 30,001 tokens: 2 workers finish them in 30 s",
        ),
        (
            seen(interactive=work(20_000), batch=work(70_000, running=True), ready=1, busy=1),
            3,
            "200 interactive and 700 batch pairs are outstanding, 90,000 tokens: 3 workers finish them in 30 s",
        ),
        (
            seen(batch=work(900_000)),
            10,
            "9,000 batch pairs wait, 900,000 tokens: 30 workers finish them in 30 s, 10 at most",
        ),
        (
            seen(batch=work(300_100)),
            10,
            "3,001 batch pairs wait, 300,100 tokens: 11 workers finish them in 30 s, 10 at most",
        ),
        (
            seen(batch=work(900_000), tokens_per_second=None),
            1,
            "9,000 batch pairs wait: one worker until its rate is measured",
        ),
        (
            seen(interactive=work(100, running=True), ready=1),
            1,
            "1 interactive pair is outstanding: one worker is enough",
        ),
        (seen(idle_seconds=120.0, ready=1), 1, "quiet for 120 s: one worker stays until 300 s"),
        (seen(idle_seconds=120.0, ready=4), 1, "quiet for 120 s: one worker stays until 300 s"),
        (seen(idle_seconds=120.0, starting=1), 1, "quiet for 120 s: one worker stays until 300 s"),
        (seen(idle_seconds=120.0, draining=1), 0, "nothing is outstanding: no worker is needed"),
        (seen(idle_seconds=300.0, ready=4), 0, "quiet for 300 s: no worker is needed"),
    ],
)
def test_a_pool_is_as_large_as_its_work(signals: PoolSignals, count: int, reason: str) -> None:
    decision = decide(signals, POOL, ScalingState(), NOW)
    assert (decision.desired, decision.reason, decision.retry_at) == (count, reason, None)


@pytest.mark.parametrize(
    ("signals", "count", "reason"),
    [
        (seen(), 2, "nothing is outstanding: no worker is needed, 2 always"),
        (seen(ready=5), 2, "quiet for 1000 s: no worker is needed, 2 always"),
        (seen(interactive=work(100), ready=2), 2, "1 interactive pair is outstanding: one worker is enough, 2 always"),
    ],
)
def test_min_workers_always_run(signals: PoolSignals, count: int, reason: str) -> None:
    decision = decide(signals, PoolSettings(min=2, max=10), ScalingState(), NOW)
    assert (decision.desired, decision.reason) == (count, reason)


class TestBatchThatWaits:
    """`batch_wakes` is off: what nobody waits for starts no worker, and is done by those that run."""

    pool = PoolSettings(max=10, batch_wakes=False)

    @pytest.mark.parametrize(
        ("signals", "count", "reason"),
        [
            (
                seen(batch=work(900), shards=1),
                0,
                "9 batch pairs wait for a warm worker: batch work does not wake this pool",
            ),
            (seen(batch=work(900), ready=1), 1, "9 batch pairs are outstanding: one worker is enough"),
            (seen(batch=work(900), starting=1), 1, "9 batch pairs are outstanding: one worker is enough"),
            (
                seen(batch=work(900_000), ready=3),
                3,
                "9,000 batch pairs are outstanding: batch work keeps 3 and starts none",
            ),
            (
                seen(interactive=work(100), batch=work(900_000)),
                1,
                "1 interactive and 9,000 batch pairs wait: wake one worker",
            ),
            (
                seen(interactive=work(60_000), batch=work(900_000), ready=1),
                2,
                "600 interactive and 9,000 batch pairs are outstanding, 60,000 tokens: 2 workers finish them in 30 s",
            ),
        ],
    )
    def test_it_keeps_workers_and_starts_none(self, signals: PoolSignals, count: int, reason: str) -> None:
        decision = decide(signals, self.pool, ScalingState(), NOW)
        assert (decision.desired, decision.reason) == (count, reason)


class TestFewer:
    def test_a_need_holds_for_the_cooldown(self) -> None:
        much, little = seen(interactive=work(90_000), ready=3), seen(interactive=work(100), ready=3)
        decisions = run([(0, much), (1, little), (59, little), (60.1, little)])
        assert [decision.desired for decision in decisions] == [3, 3, 3, 1]
        assert decisions[1].reason == "3 workers were needed within the last 60 s"

    def test_the_highest_need_of_the_cooldown_counts(self) -> None:
        loads = [(0, 90_000), (20, 60_000), (40, 100), (61, 100), (81, 100)]
        rounds = [(float(at), seen(interactive=work(tokens), ready=3)) for at, tokens in loads]
        assert [decision.desired for decision in run(rounds)] == [3, 3, 3, 2, 1]

    def test_the_last_worker_outlives_the_cooldown_and_goes_after_idle_seconds(self) -> None:
        rounds = [(0.0, seen(interactive=work(90_000), ready=3, idle_seconds=0.0))]
        rounds += [(float(at), seen(ready=3, idle_seconds=float(at))) for at in (10, 59, 61, 299, 300)]
        assert [decision.desired for decision in run(rounds)] == [3, 3, 3, 1, 1, 0]

    def test_a_pool_that_went_to_sleep_wakes_small(self) -> None:
        pool = PoolSettings(max=10, idle_seconds=5)
        rounds = [
            (0.0, seen(interactive=work(90_000), ready=3)),
            (6.0, seen(ready=3, idle_seconds=6.0)),
            (7.0, seen(interactive=work(100))),
        ]
        assert [decision.desired for decision in run(rounds, pool)] == [3, 0, 1]

    def test_a_need_of_the_past_starts_nothing_when_nothing_is_outstanding(self) -> None:
        rounds = [
            (0.0, seen(interactive=work(90_000))),
            (1.0, seen(idle_seconds=0.5, starting=2)),
            (2.0, seen(idle_seconds=1.5)),
        ]
        assert [decision.desired for decision in run(rounds)] == [3, 2, 0]

    def test_busy_workers_stay_though_the_backlog_would_do_with_fewer(self) -> None:
        """Steady work that is kept up with leaves no backlog: three of four workers are busy at any moment."""
        steady = seen(interactive=work(100), ready=4, busy=3)
        decisions = run([(float(at), steady) for at in range(0, 3600, 10)])
        assert {decision.desired for decision in decisions} == {4}
        assert decisions[-1].reason == "3.0 workers are busy on average: 4 stay"

    def test_idle_workers_do_not(self) -> None:
        rounds = [(float(at), seen(interactive=work(100), ready=4, busy=1)) for at in range(0, 3600, 10)]
        assert run(rounds)[-1].desired == 2

    def test_use_starts_no_worker(self) -> None:
        rounds = [(float(at), seen(interactive=work(100), ready=1, busy=1)) for at in range(0, 3600, 10)]
        assert {decision.desired for decision in run(rounds)} == {1}

    def test_without_a_cooldown_every_round_counts_alone(self) -> None:
        pool = PoolSettings(max=10, cooldown_seconds=0)
        loads = [(0, 90_000), (1, 100), (2, 60_000)]
        rounds = [(float(at), seen(interactive=work(tokens), ready=3)) for at, tokens in loads]
        assert [decision.desired for decision in run(rounds, pool)] == [3, 1, 2]


class TestQuiet:
    def test_a_pool_that_was_never_asked_counts_its_own_quiet(self) -> None:
        rounds = [(float(at), seen(ready=1, idle_seconds=None)) for at in (0, 299, 300)]
        assert [decision.desired for decision in run(rounds)] == [1, 1, 0]

    def test_work_ends_the_quiet(self) -> None:
        quiet, asked = seen(ready=1, idle_seconds=None), seen(ready=1, idle_seconds=None, interactive=work(100))
        rounds = [(0.0, quiet), (200.0, asked), (201.0, quiet), (400.0, quiet), (501.0, quiet)]
        assert [decision.desired for decision in run(rounds)] == [1, 1, 1, 1, 0]

    def test_idle_seconds_of_zero_stop_the_worker_at_once(self) -> None:
        assert desired(seen(ready=1, idle_seconds=0.0), PoolSettings(idle_seconds=0)) == 0


class TestFailedStarts:
    @pytest.mark.parametrize(("failures", "pause"), [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (5000, 300)])
    def test_each_in_a_row_doubles_the_pause(self, failures: int, pause: float) -> None:
        signals = seen(interactive=work(100), failures=failures, failed_at=NOW, failure="no GPU")
        decision = decide(signals, POOL, ScalingState(), NOW)
        assert (decision.desired, decision.retry_at) == (0, NOW + pause)
        later = decide(signals, POOL, decision.memory, NOW + pause)
        assert (later.desired, later.retry_at) == (1, None)

    def test_the_reason_is_kept_and_says_when_it_goes_on(self) -> None:
        signals = seen(interactive=work(100), failures=3, failed_at=NOW - 1.5, failure="CUDA out of memory")
        decision = decide(signals, POOL, ScalingState(), NOW)
        assert decision.reason == "3 starts in a row failed (CUDA out of memory): next try in 3 s"

    def test_min_workers_are_not_started_in_a_pause_either(self) -> None:
        signals = seen(failures=1, failed_at=NOW - 0.5, failure=None, ready=1)
        decision = decide(signals, PoolSettings(min=3, max=3), ScalingState(), NOW)
        assert decision.desired == 1
        assert decision.reason == "the last start failed (no reason was given): next try in 1 s"

    def test_after_the_pause_one_worker_is_tried_until_it_is_ready(self) -> None:
        signals = seen(interactive=work(90_000), failures=2, failed_at=NOW - 10, failure="no GPU")
        assert desired(signals) == 1
        assert desired(replace(signals, starting=1)) == 1
        assert desired(replace(signals, starting=2)) == 2, "those that are on their way are not called back"
        assert desired(replace(signals, ready=1)) == 2
        assert desired(replace(signals, ready=1, failures=0)) == 3

    def test_workers_that_live_are_kept(self) -> None:
        signals = seen(interactive=work(90_000), ready=2, failures=1, failed_at=NOW)
        assert desired(signals) == 2

    def test_the_pause_is_told_also_when_nobody_asks(self) -> None:
        """Whoever asks next is told when it is worth it."""
        signals = seen(failures=4, failed_at=NOW - 3, failure="no GPU")
        decision = decide(signals, POOL, ScalingState(), NOW)
        assert (decision.desired, decision.retry_at) == (0, NOW + 5)

    @pytest.mark.parametrize("failed_at", [NOW + 3600, NOW])
    def test_a_clock_that_is_ahead_does_not_lengthen_the_pause(self, failed_at: float) -> None:
        signals = seen(failures=3, failed_at=failed_at)
        assert backing_off_until(signals, NOW) == NOW + 4


def test_needs_beyond_max_are_remembered_as_max() -> None:
    rounds = [(float(at), seen(batch=work(900_000 - at * 30_000), ready=10)) for at in range(15)]
    assert run(rounds)[-1].memory.needs == ((NOW + 14, 10),)


def test_a_clock_that_is_set_back_keeps_a_need_no_longer_than_the_cooldown() -> None:
    much, little = seen(interactive=work(90_000), ready=3), seen(interactive=work(100), ready=3)
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
    seen,
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


def remembered(history: list[tuple[float, PoolSignals]], pool: PoolSettings) -> ScalingState:
    """What a decider remembers that saw this until NOW; the numbers are seconds from one look to the next."""
    at = NOW - sum(pause for pause, _ in history)
    memory = ScalingState()
    for pause, signals in history:
        memory = decide(signals, pool, memory, at).memory
        at += pause
    return memory


@properties
@given(history=histories, signals=healthy, pool=pools)
def test_never_above_max_or_below_min(
    history: list[tuple[float, PoolSignals]], signals: PoolSignals, pool: PoolSettings
) -> None:
    decision = decide(signals, pool, remembered(history, pool), NOW)
    assert pool.min <= decision.desired <= pool.max
    assert decision.retry_at is None


@properties
@given(history=histories, signals=anything, pool=pools)
def test_interactive_work_has_a_worker_unless_failed_starts_are_waited_out(
    history: list[tuple[float, PoolSignals]], signals: PoolSignals, pool: PoolSettings
) -> None:
    asked = replace(signals, interactive=work(100))
    decision = decide(asked, pool, remembered(history, pool), NOW)
    assert decision.desired >= 1 or decision.retry_at is not None


@properties
@given(signals=anything, history=histories, pool=pools)
def test_failed_starts_add_no_more_than_one_worker_to_those_that_run(
    history: list[tuple[float, PoolSignals]], signals: PoolSignals, pool: PoolSettings
) -> None:
    decision = decide(signals, pool, remembered(history, pool), NOW)
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
    memory = remembered(history, pool)

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
    assert decide(loaded, pool, memory, NOW).desired >= decide(signals, pool, memory, NOW).desired


@properties
@given(signals=healthy, pool=pools, step=st.floats(min_value=0.25, max_value=60))
def test_constant_demand_is_answered_by_a_number_that_stays(
    signals: PoolSignals, pool: PoolSettings, step: float
) -> None:
    """What is decided is there in the next round. Once fewer were enough, more are never wanted again."""
    idle = signals.idle_seconds or 0.0
    step = max(step, (pool.cooldown_seconds + pool.idle_seconds) / 50)
    settled_after = 25 * pool.cooldown_seconds + pool.idle_seconds
    memory, decided, elapsed = ScalingState(), [], 0.0
    while elapsed <= settled_after + 20 * step:
        busy = frozenset(sorted(signals.busy_workers)[: signals.ready])
        signals = replace(signals, busy_workers=busy, idle_seconds=idle + elapsed)
        decision = decide(signals, pool, memory, NOW + elapsed)
        memory, signals = decision.memory, replace(signals, starting=0, ready=decision.desired)
        decided.append((elapsed, decision.desired))
        elapsed += step
    later = [count for _, count in decided[1:]]
    assert later == sorted(later, reverse=True)
    assert len({count for at, count in decided if at > settled_after}) == 1


@properties
@given(signals=anything, pool=pools)
def test_whoever_remembers_nothing_decides_by_what_is_there(signals: PoolSignals, pool: PoolSettings) -> None:
    """The API's number: a decider with a memory wants no fewer, and more only for what it remembers."""
    alone = decide(signals, pool, ScalingState(), NOW)
    assert alone == decide(signals, pool, ScalingState(), NOW)
    again = decide(signals, pool, alone.memory, NOW)
    assert (again.desired, again.retry_at) == (alone.desired, alone.retry_at)


@properties
@given(history=st.lists(st.tuples(st.floats(min_value=0.1, max_value=40), anything), max_size=30), pool=pools)
def test_a_memory_stays_small(history: list[tuple[float, PoolSignals]], pool: PoolSettings) -> None:
    needs = remembered(history, pool).needs
    assert [count for _, count in needs] == sorted({count for _, count in needs}, reverse=True)
    assert len(needs) <= pool.max + 1
