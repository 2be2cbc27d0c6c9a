"""The verdict on measured rounds."""

import pytest

from bench.cases import CASES, ENGINE, ONNX, UNCACHED, Measured, Setup, cases_to_measure, judge, spread
from bench.servers import OURS, THEIRS


def measured(case: str, **sides: list[float]) -> Measured:
    found = Measured()
    for side, values in sides.items():
        for value in values:
            found.add(case, side, value)
    return found


def test_a_rate_is_met_at_its_bound_and_missed_below() -> None:
    at, below = (judge(measured("b", theirs=[100.0], ours=[ours]), ["b"])[0] for ours in (110.0, 109.0))
    assert at.ratio == pytest.approx(1.1)
    assert at.result == "met"
    assert below.result == "missed"


def test_a_latency_is_met_at_or_below_its_bound() -> None:
    below, above = (judge(measured("e", theirs=[20.0], ours=[ours]), ["e"])[0] for ours in (16.0, 18.0))
    assert (below.result, above.result) == ("met", "missed")


def test_the_verdict_compares_means_and_reports_the_spread() -> None:
    verdict = judge(measured("a", theirs=[100.0, 120.0], ours=[110.0, 112.0]), ["a"])[0]
    assert (verdict.reference, verdict.ours) == (110.0, 111.0)
    assert verdict.spread == pytest.approx(20 / 110)


def test_the_bare_engine_is_compared_with_case_a_of_the_service() -> None:
    found = measured("a", theirs=[130.0], ours=[95.0])
    found.add("a-engine", ENGINE, 100.0)
    verdict = judge(found, ["a-engine"])[0]
    assert (verdict.reference, verdict.ours, verdict.result) == (100.0, 95.0, "met")


def test_an_absolute_target_needs_no_other_server() -> None:
    verdict = judge(measured("j", ours=[4.0]), ["j"])[0]
    assert (verdict.target, verdict.ratio, verdict.result) == ("≤ 5 ms", None, "met")


def test_the_workers_processor_time_has_an_absolute_target() -> None:
    verdict = judge(measured("o2-cpu", ours=[0.11, 0.15]), ["o2-cpu"])[0]
    assert verdict.ours == pytest.approx(0.13)
    assert (verdict.target, verdict.result) == ("≤ 0.12 ms", "missed")
    assert cases_to_measure(["o2-cpu"]) == ["o2", "o2-cpu"]


def test_a_case_against_another_library_is_compared_with_that_library() -> None:
    found = measured("p1", ours=[220.0])
    found.add("p1", ONNX, 200.0)
    verdict = judge(found, ["p1"])[0]
    assert verdict.ratio == pytest.approx(1.1)
    assert (verdict.reference, verdict.result) == (200.0, "met")


def test_only_cases_named_as_shipped_run_without_a_dtype() -> None:
    shipped = {name for name, case in CASES.items() if case.setup is Setup.SHIPPED}
    assert shipped == {name for name, case in CASES.items() if case.title.startswith("as shipped:")}
    assert {CASES[name].setup for name in "abcdefk"} == {Setup.SAME_DTYPE}


def test_8_bits_are_compared_with_8_bits() -> None:
    eight_bits = {name for name, case in CASES.items() if case.setup is Setup.EIGHT_BITS}
    assert eight_bits == {name for name, case in CASES.items() if case.against == ONNX} == {"p1", "p2"}


def test_an_unmeasured_case_is_neither_met_nor_missed() -> None:
    verdict = judge(Measured(), ["c"])[0]
    assert (verdict.reference, verdict.ours, verdict.result) == (None, None, "not measured")


def test_a_case_can_be_missed_without_a_value() -> None:
    found = Measured(misses={"j": "no response"})
    assert judge(found, ["j"])[0].result == "missed"


def test_the_first_start_does_not_count() -> None:
    found = measured("h", ours=[10.0], theirs=[25.0])
    found.add("h", "theirs, first start", 60.0)
    assert judge(found, ["h"])[0].reference == 25.0


def test_one_round_has_no_spread() -> None:
    assert spread([5.0]) == 0.0


def test_a_case_includes_the_case_that_it_needs() -> None:
    assert cases_to_measure(["k"]) == ["e", "k"]
    assert cases_to_measure([]) == list(CASES)


def test_every_case_is_measured_on_both_servers_or_has_a_target_of_its_own() -> None:
    assert {case.against for case in CASES.values()} == {THEIRS, ENGINE, ONNX, UNCACHED, ""}
    assert {name for name, case in CASES.items() if case.needs and case.needs not in CASES} == set()
    assert OURS not in {case.against for case in CASES.values()}
