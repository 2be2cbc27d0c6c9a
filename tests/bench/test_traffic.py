"""Traffic patterns: generated arrivals and recorded ones."""

from functools import cache
from pathlib import Path

import pytest

from bench.simulate_scaling import EXAMPLE
from bench.traffic import HOUR, PATTERNS, Arrival, busiest_minute, recorded
from shared.contracts import WorkClass

INTERACTIVE, BATCH = WorkClass.INTERACTIVE, WorkClass.BATCH


@cache
def generated(name: str) -> list[Arrival]:
    return PATTERNS[name].generate(1)


@pytest.mark.parametrize("name", ["steady", "bursty", "nightly", "hourly"])
def test_arrivals_depend_only_on_the_seed(name: str) -> None:
    traffic = PATTERNS[name]
    assert traffic.generate(1) == generated(name)
    assert traffic.generate(1) != traffic.generate(2)


@pytest.mark.parametrize("name", list(PATTERNS))
def test_arrivals_are_in_order_and_within_the_length_of_the_pattern(name: str) -> None:
    times = [arrival.at for arrival in generated(name)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < PATTERNS[name].seconds


@pytest.mark.parametrize(
    ("name", "calls", "tolerance"),
    [("steady", 2 * HOUR * 10, 0.02), ("hourly", 48, 0), ("surge", HOUR * 125, 0.02), ("nightly", 12 * HOUR / 10, 0.1)],
)
def test_a_pattern_has_the_amount_of_work_in_its_title(name: str, calls: float, tolerance: float) -> None:
    arrivals = generated(name)
    found = sum(arrival.work_class is INTERACTIVE for arrival in arrivals)
    assert found == pytest.approx(calls, rel=tolerance)
    assert sum(arrival.pairs for arrival in arrivals if arrival.work_class is BATCH) == (
        800_000 if name == "nightly" else 0
    )


def test_the_diurnal_pattern_peaks_in_the_afternoon() -> None:
    hours = [int(arrival.at / HOUR) for arrival in generated("diurnal")]
    assert hours.count(14) > 100 * hours.count(3) > 0


def test_the_busiest_minute_counts_only_interactive_work() -> None:
    arrivals = [
        Arrival(0.0, 1, 100, INTERACTIVE),
        Arrival(61.0, 1, 150, INTERACTIVE),
        Arrival(119.0, 1, 50, INTERACTIVE),
        Arrival(119.0, 1, 5000, BATCH),
    ]
    assert busiest_minute(arrivals) == 200
    assert busiest_minute([]) == 0


class TestRecorded:
    def test_a_file_gives_its_arrivals_in_order(self, tmp_path: Path) -> None:
        path = tmp_path / "monday.csv"
        path.write_text("# remarks\nseconds,pairs,tokens,class\n2.5,10,4000,interactive\n\n1,2000,800000,batch\n")
        traffic = recorded(path, 9)
        assert (traffic.name, traffic.max_workers, traffic.seconds) == ("monday", 9, 2.5 + HOUR)
        assert traffic.generate(1) == [Arrival(1.0, 2000, 800_000, BATCH), Arrival(2.5, 10, 4000, INTERACTIVE)]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "the file has no arrivals"),
            ("# nothing\nseconds,pairs,tokens,class\n", "the file has no arrivals"),
            ("1,2,3\n", "line 1: expected seconds,pairs,tokens,class, got '1,2,3'"),
            ("# one\n1,2,3,batch\n1,2,x,batch\n", "line 3: .* got '1,2,x,batch'"),
            ("1,2,3,urgent\n", "line 1: .* got '1,2,3,urgent'"),
            ("-1,2,3,batch\n", "line 1: seconds must be at least 0"),
            ("nan,2,3,batch\n", "line 1: seconds must be at least 0"),
            ("1,0,3,batch\n", "line 1: .*pairs and tokens above 0"),
        ],
    )
    def test_an_error_names_the_file_and_the_line(self, tmp_path: Path, content: str, message: str) -> None:
        path = tmp_path / "broken.csv"
        path.write_text(content)
        with pytest.raises(ValueError, match=message) as caught:
            recorded(path, 9)
        assert str(path) in str(caught.value)

    def test_the_example_can_be_read_and_says_that_it_is_not_measured(self) -> None:
        assert {arrival.work_class for arrival in recorded(EXAMPLE, 9).generate(1)} == {INTERACTIVE, BATCH}
        assert "measured nowhere" in EXAMPLE.read_text()
