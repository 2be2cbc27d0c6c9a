"""The slopes, and a short run."""

import pytest

from tests.soak.load import Calls
from tests.soak.regression import Series, growth_of_thirds
from tests.soak.report import summary, table
from tests.soak.run import Plan, p99_by_minute, run


def test_the_slope_is_the_change_per_hour() -> None:
    series = Series("memory", "MiB")
    for second in range(0, 600, 5):
        series.add(second, 50 + second / 3600 * 2 + (0.1 if second % 10 else -0.1))
    assert series.slope == pytest.approx(2.0, abs=0.2)
    assert series.after(300).times[0] == 300


def test_too_few_values_have_no_slope() -> None:
    assert Series("memory", "MiB").slope == 0.0
    assert Series("memory", "MiB", [1.0], [5.0]).slope == 0.0
    assert growth_of_thirds([1.0, 2.0]) == 1.0


def test_growth_compares_the_last_third_with_the_first() -> None:
    assert growth_of_thirds([10, 10, 10, 11, 12, 13, 20, 20, 20]) == 2.0


def test_p99_is_of_each_minute_with_enough_calls() -> None:
    calls = Calls(0.0)
    calls.latencies = [(second / 10, 0.010 if second % 50 else 0.2) for second in range(1200)]
    calls.latencies += [(130.0, 9.0)]
    series = p99_by_minute(calls)
    assert series.times == [0.0, 60.0]
    assert series.values[0] == pytest.approx(200)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_nothing_grows_in_three_minutes_with_kills() -> None:
    """The limit of memory is wide: processes still warm up. `make soak` has the real one."""
    plan = Plan(seconds=180, warm_up_seconds=90, kill_every_seconds=30, memory_growth=60, capacity_seconds=8)
    outcome = run(plan, print)
    print(summary(outcome), table(outcome), sep="\n")
    assert outcome.kills >= 5
    assert outcome.problems() == []
