"""Engines that batch continuously call back when a shard ends, so no thread waits for them."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from shared.contracts import WorkClass
from shared.ledger.verdicts import Claim, ClaimVerdict
from tests.shared.support import make_lease, make_request
from tests.worker.support import ScriptedEngine, wait_until
from worker.dispatch.executor import Executor, ShardOutcome, ShardReport
from worker.dispatch.leases import HeldShard
from worker.engines.base import (
    BatchScores,
    Cancellation,
    EngineDied,
    EngineError,
    ScoringAborted,
    ScoringBatch,
    TransientEngineError,
)

INTERACTIVE, BATCH = WorkClass.INTERACTIVE, WorkClass.BATCH


class ManualCallbackEngine(ScriptedEngine):
    """Records its batches and their threads. The test ends each batch through `pending`."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[Future[BatchScores]] = []
        self.threads: list[str] = []

    def begin(self, batch: ScoringBatch, cancellation: Cancellation) -> "Future[BatchScores]":
        pending: Future[BatchScores] = Future()
        self.batches.append(batch)
        self.threads.append(threading.current_thread().name)
        self.pending.append(pending)
        return pending

    def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
        raise AssertionError("the executor must call begin instead")


def begin(
    executor: Executor, *texts: str, work_class: WorkClass = INTERACTIVE, held: HeldShard | None = None
) -> "Future[Callable[[], ShardReport]]":
    """Begin one claimed shard. The future has the function that creates its report; a second end raises."""
    end: Future[Callable[[], ShardReport]] = Future()
    claim = Claim(ClaimVerdict.RUN, make_request(*texts))
    executor.begin(claim, held or HeldShard(make_lease()), work_class, end.set_result)
    return end


def test_many_shards_are_in_progress_and_each_ends_independently() -> None:
    engine = ManualCallbackEngine()
    executor = Executor(engine, threads=1)
    ends = [begin(executor, f"text {number}") for number in range(5)]
    wait_until(lambda: len(engine.pending) == 5)
    assert not any(end.done() for end in ends)
    engine.pending[3].set_result(BatchScores([0.5], prompt_tokens=4))
    report = ends[3].result(5)()
    assert report.outcome is ShardOutcome.SCORED
    assert report.scores is not None
    assert (report.scores.scores, report.scores.prompt_tokens) == ([0.5], 4)
    assert [end.done() for end in ends] == [False, False, False, True, False]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (EngineError("never"), ShardOutcome.FAILED),
        (TransientEngineError("not now"), ShardOutcome.RETRY),
        (EngineDied("it died"), ShardOutcome.RELEASED),
        (ScoringAborted(), ShardOutcome.DISCARDED),
        (ZeroDivisionError(), ShardOutcome.FAILED),
    ],
)
def test_errors_before_and_after_the_start_become_the_report(error: Exception, outcome: ShardOutcome) -> None:
    class FailsToBegin(ManualCallbackEngine):
        def begin(self, batch: ScoringBatch, cancellation: Cancellation) -> "Future[BatchScores]":
            raise error

    engine = ManualCallbackEngine()
    end = begin(Executor(engine), "one")
    engine.pending[0].set_exception(error)
    assert end.result(5)().outcome is outcome
    assert begin(Executor(FailsToBegin()), "one").result(5)().outcome is outcome


def test_empty_and_released_shards_do_not_reach_the_engine() -> None:
    engine, held = ManualCallbackEngine(), HeldShard(make_lease())
    held.release()
    assert begin(Executor(engine), "one", held=held).result(5)().outcome is ShardOutcome.RELEASED
    report = begin(Executor(engine), "", " ").result(5)()
    assert (report.outcome, engine.batches) == (ShardOutcome.SCORED, [])


def test_only_small_interactive_shards_are_prepared_on_the_calling_thread() -> None:
    """Tokenizing a large shard there would delay the other shards."""
    engine = ManualCallbackEngine()
    executor = Executor(engine)
    here = threading.current_thread().name
    for texts, work_class in ((["short"], INTERACTIVE), (["long " * 10_000], INTERACTIVE), (["short"], BATCH)):
        begin(executor, *texts, work_class=work_class)
        wait_until(lambda: len(engine.pending) > 0)
        engine.pending.pop().set_result(BatchScores([0.5], prompt_tokens=1))
    assert [thread == here for thread in engine.threads] == [True, False, False]
