from dataclasses import replace

import pytest

from api.pool_monitor import PoolSnapshot, StartFailure
from api.pool_problems import problem_of
from shared.models import PoolSettings
from shared.pools.scaling import ScalingState, decide
from shared.pools.signals import ClassLoad, PoolSignals

IDLE = PoolSignals("small", ClassLoad(), ClassLoad(), 0.0, None, shards=0, starting=0, ready=0, draining=0)
WAITING = replace(IDLE, batch=ClassLoad(jobs=3), oldest_seconds=42.0)


def snapshot(signals: PoolSignals) -> PoolSnapshot:
    return PoolSnapshot(signals, decide(signals, PoolSettings(), ScalingState(), 0.0))


@pytest.mark.parametrize(
    "signals",
    [IDLE, replace(WAITING, ready=1), replace(WAITING, starting=1), replace(WAITING, oldest_seconds=1.0)],
    ids=["no work", "a worker is ready", "a worker starts", "it waits for a moment only"],
)
def test_a_pool_that_works_has_no_problem(signals: PoolSignals) -> None:
    assert problem_of(snapshot(signals), None) is None


def test_work_that_nothing_starts_a_worker_for_is_a_problem() -> None:
    assert problem_of(snapshot(WAITING), None) == (
        "3 jobs wait for 42 s and no worker is starting: is an autoscaler or a worker running?"
    )


@pytest.mark.parametrize(
    ("retry_in", "when"), [(7.2, "the next attempt may follow in 8 s"), (0.0, "it may be tried again")]
)
def test_a_failed_start_is_told_with_its_reason(retry_in: float, when: str) -> None:
    failure = StartFailure(0.0, "no kernel image is available", retry_in)
    assert problem_of(snapshot(IDLE), failure) == (
        f"no worker runs, since the last start failed: no kernel image is available; {when}"
    )
