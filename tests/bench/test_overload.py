"""A short form of `make bench-overload`, with targets that also hold on a busy machine."""

import pytest

from bench.overload.__main__ import table
from bench.overload.caller import Answer
from bench.overload.cases import Lengths, Measurement, flood_of_calls, p99, storm

SHORT = Lengths(warm_up=3, calm=1.5, storm=2.5, afterwards=0.5)


async def test_a_storm_is_refused_at_once_and_what_is_accepted_is_answered_in_time() -> None:
    ratio, refusals, goodput, after, memory = await storm(SHORT)
    assert ratio.figures["other"] == 0
    assert ratio.figures["accepted_p99_s"] < 1.0
    assert refusals.figures["refused"] > ratio.figures["accepted"] > 0.5 * 40 * SHORT.storm
    assert after.met
    assert memory.met
    assert goodput.what.startswith("goodput")


async def test_one_keys_flood_does_not_reach_another_key() -> None:
    (line,) = await flood_of_calls(SHORT, ways=[True])
    assert line.measured.split("; ")[1].startswith("0 of ")
    # Without fair shares its calls would wait for two seconds.
    assert line.figures["beside_p99_s"] < 0.7


def test_the_table_has_a_line_for_every_measurement() -> None:
    lines = table([Measurement("a", "1", "<= 2", True), Measurement("b", "3", "<= 2", False)]).splitlines()
    assert lines[2:] == ["| a | 1 | <= 2 | met |", "| b | 3 | <= 2 | missed |"]


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (100, 99), (1000, 990)])
def test_p99_is_the_time_that_99_percent_do_not_exceed(count: int, expected: int) -> None:
    assert p99([Answer(200, 0.0, number, None, None) for number in range(count, 0, -1)]) == expected
