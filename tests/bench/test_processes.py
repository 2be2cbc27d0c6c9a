"""A short form of `make bench-processes`."""

from bench.processes import CASES, run, table


def test_both_numbers_of_processes_answer_all_calls() -> None:
    outcomes = run([1, 2], connections=8, seconds=0.5, rounds=1)
    assert set(outcomes) == {(case, count) for case in CASES for count in (1, 2)}
    assert all(outcome.requests and not outcome.failed for (outcome,) in outcomes.values())
    rows = table(outcomes).splitlines()[2:]
    assert [row.split(" | ")[1] for row in rows] == ["1", "2", "1", "2"]
