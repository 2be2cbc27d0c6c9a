"""Arrivals: those that are drawn, and those that a file has recorded."""

from functools import cache
from pathlib import Path

import pytest

from bench.simulate_scaling import EXAMPLE
from bench.traffic import HOUR, PATTERNS, Arrival, busiest_minute, recorded
from shared.contracts import WorkClass

INTERACTIVE, BATCH = WorkClass.INTERACTIVE, WorkClass.BATCH


@cache
def drawn(name: str) -> list[Arrival]:
    return PATTERNS[name].drawn(1)


@pytest.mark.parametrize("name", ["steady", "bursty", "nightly", "hourly"])
def test_a_seed_draws_the_same_arrivals_again_and_another_one_others(name: str) -> None:
    traffic = PATTERNS[name]
    assert traffic.drawn(1) == drawn(name)
    assert traffic.drawn(1) != traffic.drawn(2)


@pytest.mark.parametrize("name", list(PATTERNS))
def test_a_pattern_comes_in_order_within_its_time(name: str) -> None:
    times = [arrival.at for arrival in drawn(name)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < PATTERNS[name].seconds


@pytest.mark.parametrize(
    ("name", "calls", "tolerance"),
    [("steady", 2 * HOUR * 10, 0.02), ("hourly", 48, 0), ("surge", HOUR * 125, 0.02), ("nightly", 12 * HOUR / 10, 0.1)],
)
def test_a_pattern_is_as_much_as_its_title_says(name: str, calls: float, tolerance: float) -> None:
    arrivals = drawn(name)
    found = sum(arrival.work_class is INTERACTIVE for arrival in arrivals)
    assert found == pytest.approx(calls, rel=tolerance)
    assert sum(arrival.pairs for arrival in arrivals if arrival.work_class is BATCH) == (
        800_000 if name == "nightly" else 0
    )


def test_a_day_has_its_calls_by_day() -> None:
    hours = [int(arrival.at / HOUR) for arrival in drawn("diurnal")]
    assert hours.count(14) > 100 * hours.count(3) > 0


def test_the_busiest_minute_counts_what_somebody_waits_for() -> None:
    arrivals = [
        Arrival(0.0, 1, 100, INTERACTIVE),
        Arrival(61.0, 1, 150, INTERACTIVE),
        Arrival(119.0, 1, 50, INTERACTIVE),
        Arrival(119.0, 1, 5000, BATCH),
    ]
    assert busiest_minute(arrivals) == 200
    assert busiest_minute([]) == 0


class TestRecorded:
    def test_a_file_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "monday.csv"
        path.write_text("# remarks\nseconds,pairs,tokens,class\n2.5,10,4000,interactive\n\n1,2000,800000,batch\n")
        traffic = recorded(path, 9)
        assert (traffic.name, traffic.max_workers, traffic.seconds) == ("monday", 9, 2.5 + HOUR)
        assert traffic.drawn(1) == [Arrival(1.0, 2000, 800_000, BATCH), Arrival(2.5, 10, 4000, INTERACTIVE)]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "there is no arrival in it"),
            ("# nothing\nseconds,pairs,tokens,class\n", "there is no arrival in it"),
            ("1,2,3\n", "line 1: seconds,pairs,tokens,class are expected, '1,2,3' was read"),
            ("# one\n1,2,3,batch\n1,2,x,batch\n", "line 3: .*'1,2,x,batch' was read"),
            ("1,2,3,urgent\n", "line 1: .*'1,2,3,urgent' was read"),
            ("-1,2,3,batch\n", "line 1: seconds must not be negative"),
            ("nan,2,3,batch\n", "line 1: seconds must not be negative"),
            ("1,0,3,batch\n", "line 1: .*pairs and tokens must be above 0"),
        ],
    )
    def test_a_mistake_is_named_by_file_and_line(self, tmp_path: Path, content: str, message: str) -> None:
        path = tmp_path / "broken.csv"
        path.write_text(content)
        with pytest.raises(ValueError, match=message) as caught:
            recorded(path, 9)
        assert str(path) in str(caught.value)

    def test_the_example_can_be_read_and_says_that_it_is_made(self) -> None:
        assert {arrival.work_class for arrival in recorded(EXAMPLE, 9).drawn(1)} == {INTERACTIVE, BATCH}
        assert "measured nowhere" in EXAMPLE.read_text()
