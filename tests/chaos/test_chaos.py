"""The short run: every kind of fault at least once, with twenty killed workers. `make chaos` is the long run."""

import threading

import pytest

from tests.chaos.faults import Fault
from tests.chaos.harness import leftovers_title, run_scenarios
from tests.chaos.report import ReportRow
from tests.chaos.scenarios import SHORT_KILLS, short_scenarios

SEED = 1

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def rows() -> dict[str, ReportRow]:
    """The outcome of all jobs, by kind of fault."""
    lines: list[str] = []
    return {row.kind: row for row in run_scenarios(short_scenarios(), SEED, lines.append, threading.Event())}


PLANNED = [step for scenario in short_scenarios() for step in scenario.plan]
LEFTOVERS = [leftovers_title(scenario.name) for scenario in short_scenarios()]


@pytest.mark.parametrize(("fault", "count"), PLANNED, ids=[fault.kind for fault, _ in PLANNED])
def test_no_job_is_lost_duplicated_or_wrong(rows: dict[str, ReportRow], fault: Fault, count: int) -> None:
    row = rows[fault.kind]
    assert row.problems == []
    assert row.faults >= count
    assert row.jobs >= 5


@pytest.mark.parametrize("kind", LEFTOVERS)
def test_no_messages_shards_or_keys_are_left_at_the_end(rows: dict[str, ReportRow], kind: str) -> None:
    assert rows[kind].problems == []


def test_at_least_the_planned_number_of_workers_is_killed(rows: dict[str, ReportRow]) -> None:
    assert rows["worker SIGKILL"].faults >= SHORT_KILLS
