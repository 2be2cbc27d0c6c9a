"""An engine that batches continuously takes a shard in and calls back: no thread waits for it."""

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


class FeedingEngine(ScriptedEngine):
    """Ends each batch when it is told to, and knows on which threads they came."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[Future[BatchScores]] = []
        self.threads: list[str] = []

    def begin(self, batch: ScoringBatch, cancellation: Cancellation) -> "Future[BatchScores]":
        pending: Future[BatchScores] = Future()
        self.batches.append(batch)
        self.threads.append(threading.current_thread().name)
        self.taken.append(pending)
        return pending

    def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
        raise AssertionError("nobody is to wait in it")


def begin(
    executor: Executor, *texts: str, work_class: WorkClass = INTERACTIVE, held: HeldShard | None = None
) -> "Future[Callable[[], ShardReport]]":
    """Begin one claimed shard; what makes its report comes when it has ended. A second end is an error."""
    ended: Future[Callable[[], ShardReport]] = Future()
    claim = Claim(ClaimVerdict.RUN, make_request(*texts))
    executor.begin(claim, held or HeldShard(make_lease()), work_class, ended.set_result)
    return ended


def test_many_shards_are_in_it_at_once_and_each_ends_when_it_does() -> None:
    engine = FeedingEngine()
    executor = Executor(engine, threads=1)
    ends = [begin(executor, f"text {number}") for number in range(5)]
    wait_until(lambda: len(engine.taken) == 5)
    assert not any(end.done() for end in ends)
    engine.taken[3].set_result(BatchScores([0.5], prompt_tokens=4))
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
        (EngineDied("gone"), ShardOutcome.RELEASED),
        (ScoringAborted(), ShardOutcome.DISCARDED),
        (ZeroDivisionError(), ShardOutcome.FAILED),
    ],
)
def test_whatever_goes_wrong_in_it_or_before_it_is_the_report(error: Exception, outcome: ShardOutcome) -> None:
    class Refusing(FeedingEngine):
        def begin(self, batch: ScoringBatch, cancellation: Cancellation) -> "Future[BatchScores]":
            raise error

    engine = FeedingEngine()
    ended = begin(Executor(engine), "one")
    engine.taken[0].set_exception(error)
    assert ended.result(5)().outcome is outcome
    assert begin(Executor(Refusing()), "one").result(5)().outcome is outcome


def test_what_has_no_text_or_is_not_wanted_never_reaches_it() -> None:
    engine, held = FeedingEngine(), HeldShard(make_lease())
    held.release()
    assert begin(Executor(engine), "one", held=held).result(5)().outcome is ShardOutcome.RELEASED
    report = begin(Executor(engine), "", " ").result(5)()
    assert (report.outcome, engine.batches) == (ShardOutcome.SCORED, [])


def test_only_little_interactive_work_is_prepared_where_it_was_claimed() -> None:
    """Turning much text into tokens would keep the other shards waiting."""
    engine = FeedingEngine()
    executor = Executor(engine)
    here = threading.current_thread().name
    for texts, work_class in ((["short"], INTERACTIVE), (["long " * 10_000], INTERACTIVE), (["short"], BATCH)):
        begin(executor, *texts, work_class=work_class)
        wait_until(lambda: len(engine.taken) > 0)
        engine.taken.pop().set_result(BatchScores([0.5], prompt_tokens=1))
    assert [thread == here for thread in engine.threads] == [True, False, False]
