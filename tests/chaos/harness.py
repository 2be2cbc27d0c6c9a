"""Runs scenarios of faults, each on its own cluster, and reports the outcome of every job.

A scenario injects its faults one after the other. For each it starts the load, injects the fault, stops the load and
waits until every job has ended. At the end of the scenario no wake-up message, no outstanding shard and no expired key
may be left.
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
from tests.chaos.fault_context import FaultContext, Stopped
from tests.chaos.faults import Fault
from tests.chaos.load import CaseNumbers, LoadGenerator
from tests.chaos.observer import Observer
from tests.chaos.report import ReportRow

SETTLE_SECONDS = 30.0
"""Every accepted job must have ended this long after the load stops."""
_EXPIRY_MARGIN_SECONDS = 15.0
_PROGRESS_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """Faults to inject, each with its count. `callers` is the number of concurrent callers."""

    name: str
    plan: Sequence[tuple[Fault, int]]
    size: Size
    callers: int = 12


class ScenarioRun:
    """Runs one scenario on a thread. `rows` grows while it runs."""

    def __init__(self, scenario: Scenario, seed: int, stopped: threading.Event, log: Callable[[str], None]) -> None:
        self.scenario = scenario
        self.rows: list[ReportRow] = []
        self.error: BaseException | None = None
        self._seed = seed
        self._stopped = stopped
        self._log = log
        self._numbers = CaseNumbers()
        self._hits: Counter[tuple[str, int]] = Counter()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"scenario-{scenario.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, seconds: float) -> bool:
        """Return whether it ended within `seconds`. After Ctrl-C, Thread.join reports a running thread as ended."""
        return self._ended.wait(seconds)

    def _run(self) -> None:
        try:
            with Cluster(self.scenario.size) as cluster:
                self._run_faults(cluster)
        except Stopped:
            pass
        except BaseException as error:
            self.error = error
            self._stopped.set()
        finally:
            self._ended.set()

    def _run_faults(self, cluster: Cluster) -> None:
        leftovers = ReportRow(leftovers_title(self.scenario.name))
        observer = Observer(cluster.new_view(), cluster.urls, leftovers)
        observer.start()
        try:
            for position, (fault, count) in enumerate(self.scenario.plan):
                row = ReportRow(fault.kind, recovery_limit=fault.recovery_limit)
                self.rows.append(row)
                self._run_fault(cluster, observer, fault, count, row, position)
                row.notes += _describe_unexpected_exits(cluster)
            self.rows.append(leftovers)
            self._check_leftovers(cluster, leftovers)
        finally:
            observer.stop()

    def _run_fault(
        self, cluster: Cluster, observer: Observer, fault: Fault, count: int, row: ReportRow, position: int
    ) -> None:
        observer.row = row
        seed = self._seed * 1000 + position
        load = LoadGenerator(cluster.urls, observer, self._numbers, seed, self.scenario.callers)
        context = FaultContext(cluster, observer, load, row, random.Random(seed), self._stopped, self._hits)
        progress = _Progress(self._log, self.scenario.name, row, count)
        load.start()
        progress.start()
        try:
            context.sleep(1.0)
            fault.inject(context, count)
            load.stop()
            load_stopped_at = time.monotonic()
            context.wait_until(lambda: not observer.busy, SETTLE_SECONDS)
            row.quiet_after = time.monotonic() - load_stopped_at
            observer.report_unfinished()
        finally:
            load.stop(seconds=0.0)
            progress.stop()

    def _check_leftovers(self, cluster: Cluster, row: ReportRow) -> None:
        """Wait until queues are empty and keys have expired. Reports leftovers at the time limit as wrong."""
        self._log(f"{self.scenario.name}: waiting until the queues are empty and the jobs' keys have expired")
        size = cluster.size
        # kombu redelivers a dead worker's messages after its visibility timeout; then a claim drops them.
        limit = VISIBILITY_TIMEOUT_SECONDS + _EXPIRY_MARGIN_SECONDS
        left = self._wait_until_empty(
            lambda: [f"{name}: {count}" for name, count in cluster.view.leftover_counts().items()], limit
        )
        row.wrong += [f"not empty after {limit:g} s: {name}" for name in left]
        limit = size.result_seconds + _EXPIRY_MARGIN_SECONDS
        row.wrong += [f"has not expired: {name}" for name in self._wait_until_empty(cluster.view.job_keys, limit)]

    def _wait_until_empty(self, find: Callable[[], list[str]], seconds: float) -> list[str]:
        deadline = time.monotonic() + seconds
        while True:
            try:
                found = find()
            except redis.RedisError as error:
                found = [str(error)]
            if not found or time.monotonic() > deadline:
                return found
            if self._stopped.wait(0.2):
                raise Stopped


class _Progress:
    """Logs the progress of one fault every few seconds."""

    def __init__(self, log: Callable[[str], None], scenario: str, row: ReportRow, count: int) -> None:
        self._log = log
        self._scenario = scenario
        self._row = row
        self._count = count
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        self._log(f"{self._line()}, done")

    def _run(self) -> None:
        while not self._ended.wait(_PROGRESS_SECONDS):
            self._log(self._line())

    def _line(self) -> str:
        row = self._row
        problems = len(row.lost) + len(row.duplicated) + len(row.wrong)
        worst = "" if row.worst_recovery is None else f", worst recovery {row.worst_recovery:.1f} s"
        return f"{self._scenario}: {row.kind}: {row.faults}/{self._count}, {row.jobs} jobs, {problems} problems{worst}"


def leftovers_title(scenario: str) -> str:
    """Title of the row for the data that a scenario leaves in Redis."""
    return f"leftovers ({scenario})"


def run_scenarios(
    scenarios: Sequence[Scenario], seed: int, log: Callable[[str], None], stopped: threading.Event
) -> list[ReportRow]:
    """Run all scenarios concurrently. Returns their rows. Raises the error that stopped a scenario."""
    runs = [ScenarioRun(scenario, seed + number, stopped, log) for number, scenario in enumerate(scenarios)]
    try:
        for run in runs:
            run.start()
        for run in runs:
            # In short steps, because Ctrl-C is only handled between them.
            while not run.join(0.5):
                pass
    finally:
        stopped.set()
        for run in runs:
            if not run.join(60.0):
                log(f"{run.scenario.name}: did not stop")
            elif run.error is not None:
                log(f"{run.scenario.name}: {run.error!r}")
    for run in runs:
        if run.error is not None:
            raise run.error
    return [row for run in runs for row in run.rows]


def _describe_unexpected_exits(cluster: Cluster) -> list[str]:
    """Describe exits that no fault caused directly: poison documents, or crashes of the product."""
    unexpected_exits, cluster.unexpected_exits = cluster.unexpected_exits, []
    return [f"{description}, {count} times" for description, count in Counter(unexpected_exits).items()]
