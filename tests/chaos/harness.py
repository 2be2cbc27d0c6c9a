"""Plays lanes of faults, each on a cluster of its own, and says what became of every job.

A lane goes through its faults one after the other: load, strikes, then quiet until every job has ended. At its end
nothing may be left: no doorbell in a queue, no shard outstanding, no key once the jobs have outlived their time.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import redis

from shared.queue.celery_app import VISIBILITY_TIMEOUT_SECONDS
from tests.chaos.cluster import Cluster, Size
from tests.chaos.faults import Fault
from tests.chaos.load import Load, Numbers
from tests.chaos.observer import Observer
from tests.chaos.report import Row
from tests.chaos.stage import Stage, Stopped

SETTLE_SECONDS = 30.0
"""The bound: so long after the last fault every accepted job has ended."""
_FORGET_SECONDS = 15.0
_SAY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Lane:
    """Faults to play, each with the number of its strikes. `callers` is the number of calls at once."""

    name: str
    plan: Sequence[tuple[Fault, int]]
    size: Size
    callers: int = 12


class LaneRun:
    """One lane on its way. `rows` fills while it runs."""

    def __init__(self, lane: Lane, seed: int, stopped: threading.Event, say: Callable[[str], None]) -> None:
        self.lane = lane
        self.rows: list[Row] = []
        self.error: BaseException | None = None
        self._seed = seed
        self._stopped = stopped
        self._say = say
        self._numbers = Numbers()
        self._hits: Counter[tuple[str, int]] = Counter()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lane-{lane.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, seconds: float) -> bool:
        """Whether it has ended within the time. A Ctrl-C amid Thread.join would leave the thread looking ended."""
        return self._ended.wait(seconds)

    def _run(self) -> None:
        try:
            with Cluster(self.lane.size) as cluster:
                self._play(cluster)
        except Stopped:
            pass
        except BaseException as error:
            self.error = error
            self._stopped.set()
        finally:
            self._ended.set()

    def _play(self, cluster: Cluster) -> None:
        behind = Row(f"left behind ({self.lane.name})")
        observer = Observer(cluster.view_again(), cluster.urls, behind)
        observer.start()
        try:
            for position, (fault, count) in enumerate(self.lane.plan):
                row = Row(fault.kind, recovery_limit=fault.recovery_limit)
                self.rows.append(row)
                self._play_fault(cluster, observer, fault, count, row, position)
                row.notes += _unexpected(cluster)
            self.rows.append(behind)
            self._check_nothing_is_left(cluster, behind)
        finally:
            observer.stop()

    def _play_fault(
        self, cluster: Cluster, observer: Observer, fault: Fault, count: int, row: Row, position: int
    ) -> None:
        observer.row = row
        seed = self._seed * 1000 + position
        load = Load(cluster.urls, observer, self._numbers, seed, self.lane.callers)
        stage = Stage(cluster, observer, load, row, random.Random(seed), self._stopped, self._hits)
        said = _Progress(self._say, self.lane.name, row, count)
        load.start()
        said.start()
        try:
            stage.pause(1.0)
            fault.strike(stage, count)
            load.stop()
            struck = time.monotonic()
            stage.until(lambda: not observer.busy, SETTLE_SECONDS)
            row.quiet_after = time.monotonic() - struck
            observer.close_books()
        finally:
            load.stop(seconds=0.0)
            said.stop()

    def _check_nothing_is_left(self, cluster: Cluster, row: Row) -> None:
        """Wait, with a bound, until queues and keys are gone; what is still there is wrong."""
        self._say(f"{self.lane.name}: waiting for empty queues, and for the jobs' keys to go")
        size = cluster.size
        # kombu delivers a dead worker's messages again after its visibility timeout; then a claim drops them.
        bound = VISIBILITY_TIMEOUT_SECONDS + _FORGET_SECONDS
        left = self._wait_for_none(
            lambda: [f"{name}: {count}" for name, count in cluster.view.left_over().items()], bound
        )
        row.wrong += [f"not empty after {bound:g} s: {what}" for what in left]
        bound = size.result_seconds + _FORGET_SECONDS
        row.wrong += [f"still there: {name}" for name in self._wait_for_none(cluster.view.job_keys, bound)]

    def _wait_for_none(self, look: Callable[[], list[str]], seconds: float) -> list[str]:
        deadline = time.monotonic() + seconds
        while True:
            try:
                found = look()
            except redis.RedisError as error:
                found = [str(error)]
            if not found or time.monotonic() > deadline:
                return found
            if self._stopped.wait(0.2):
                raise Stopped


class _Progress:
    """Says every few seconds how far a fault has come."""

    def __init__(self, say: Callable[[str], None], lane: str, row: Row, count: int) -> None:
        self._say = say
        self._lane = lane
        self._row = row
        self._count = count
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        self._say(f"{self._line()}, done")

    def _run(self) -> None:
        while not self._ended.wait(_SAY_SECONDS):
            self._say(self._line())

    def _line(self) -> str:
        row = self._row
        bad = len(row.lost) + len(row.duplicated) + len(row.wrong)
        worst = "" if row.worst_recovery is None else f", worst recovery {row.worst_recovery:.1f} s"
        return f"{self._lane}: {row.kind}: {row.faults}/{self._count}, {row.jobs} jobs, {bad} problems{worst}"


def run_lanes(lanes: Sequence[Lane], seed: int, say: Callable[[str], None], stopped: threading.Event) -> list[Row]:
    """Play all of them at once; answers their rows. Raises what kept a lane from running."""
    runs = [LaneRun(lane, seed + number, stopped, say) for number, lane in enumerate(lanes)]
    try:
        for run in runs:
            run.start()
        for run in runs:
            # In small steps: Ctrl-C is heard between two of them.
            while not run.join(0.5):
                pass
    finally:
        stopped.set()
        for run in runs:
            if not run.join(60.0):
                say(f"{run.lane.name}: does not stop")
            elif run.error is not None:
                say(f"{run.lane.name}: {run.error!r}")
    for run in runs:
        if run.error is not None:
            raise run.error
    return [row for run in runs for row in run.rows]


def _unexpected(cluster: Cluster) -> list[str]:
    """Processes that ended by themselves: of poison, or of something that the product did not live through."""
    deaths, cluster.deaths = cluster.deaths, []
    return [f"{sentence}, {count} times" for sentence, count in Counter(deaths).items()]
