"""The short form: every kind of fault at least once, twenty workers killed, and not one job the worse for it.

`make chaos` is the long form.
"""

import threading

import pytest

from tests.chaos.faults import Fault
from tests.chaos.harness import run_lanes
from tests.chaos.plans import SHORT_KILLS, short_lanes
from tests.chaos.report import Row

SEED = 1

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    """What became of all the jobs, by the kind of fault."""
    lines: list[str] = []
    return {row.kind: row for row in run_lanes(short_lanes(), SEED, lines.append, threading.Event())}


PLANNED = [step for lane in short_lanes() for step in lane.plan]
LEFT_BEHIND = [f"left behind ({lane.name})" for lane in short_lanes()]


@pytest.mark.parametrize(("fault", "count"), PLANNED, ids=[fault.kind for fault, _ in PLANNED])
def test_every_job_survives(rows: dict[str, Row], fault: Fault, count: int) -> None:
    row = rows[fault.kind]
    assert row.problems == []
    assert row.faults >= count
    assert row.jobs >= 5


@pytest.mark.parametrize("kind", LEFT_BEHIND)
def test_nothing_is_left_behind(rows: dict[str, Row], kind: str) -> None:
    assert rows[kind].problems == []


def test_enough_workers_were_killed(rows: dict[str, Row]) -> None:
    assert rows["worker SIGKILL"].faults >= SHORT_KILLS
