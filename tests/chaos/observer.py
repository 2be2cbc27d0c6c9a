"""Tracks every job that was accepted or is found in Redis, until its keys expire.

Reports jobs that were lost, duplicated or wrong, and how long shards took to recover from a fault.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import redis

from shared.ledger.job_record import JobStatus
from tests.chaos.cases import Case, Kind, Ranking
from tests.chaos.ledger_view import Job, Lease, LedgerView
from tests.chaos.report import ReportRow
from tests.chaos.result_checks import ResultChecker, compare_ranking

_TICK_SECONDS = 0.1
_SCAN_SECONDS = 0.5
_RECHECK_SECONDS = 1.0


@dataclass(slots=True)
class Tracked:
    """The observed state of one job. `settled`: it was reported as lost, and is not checked further."""

    job_id: str
    row: ReportRow
    since: float
    case: Case | None = None
    statuses: set[JobStatus] = field(default_factory=set)
    seen: bool = False
    deleted: bool = False
    settled: bool = False
    duplicated: bool = False
    shards: int = 0

    @property
    def ended(self) -> bool:
        return any(status.final for status in self.statuses)


@dataclass(frozen=True, slots=True)
class RecoveryWatch:
    """A lease that was held when a fault was injected. `history`: the shard's states, with the seconds since then."""

    lease: Lease
    since: float
    row: ReportRow
    history: list[tuple[float, str]] = field(default_factory=list)

    def record(self, job: Job | None, now: float) -> None:
        state = "deleted" if job is None else f"{job.status}: {job.shards[self.lease.shard]}"
        if not self.history or self.history[-1][1] != state:
            self.history.append((now - self.since, state))

    def describe(self) -> str:
        steps = "; ".join(f"{seconds:.1f} s {state}" for seconds, state in self.history)
        return f"{self.lease.job_id}/{self.lease.shard} of {self.lease.token.split(':')[0]}: {steps}"


class Observer:
    """Runs on its own threads between `start` and `stop`. New jobs are counted in `row`, which may be replaced."""

    def __init__(self, view: LedgerView, urls: Sequence[str], row: ReportRow) -> None:
        self.row = row
        self.jobs: dict[str, Tracked] = {}
        self._view = view
        self._cases: dict[int, Case] = {}
        self._disconnected: set[int] = set()
        self._keyed: set[int] = set()
        self._jobs_of: defaultdict[int, set[str]] = defaultdict(set)
        self._watches: list[RecoveryWatch] = []
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._results = ResultChecker(urls)
        self._scanned = self._rechecked = 0.0
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)

    def start(self) -> None:
        self._results.start()
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._results.stop()

    def register(self, case: Case) -> None:
        """Register a request that is about to be sent."""
        with self._lock:
            self._cases[case.number] = case

    def connection_lost(self, case: Case) -> None:
        """The caller lost its connection: the job may not exist, or may be canceled."""
        with self._lock:
            self._disconnected.add(case.number)

    def job_accepted(self, job_id: str, case: Case, *, keyed: bool = False) -> None:
        """A caller received this job id. `keyed`: it sent an Idempotency-Key, so the case must have only this job."""
        with self._lock:
            if keyed:
                self._keyed.add(case.number)
            self._assign_case(self._track(job_id), case)

    def result_received(self, job_id: str, case: Case, ranking: Ranking) -> None:
        """A waiting caller received this ranking."""
        self.job_accepted(job_id, case)
        with self._lock:
            self.jobs[job_id].row.wrong += compare_ranking(job_id, case, ranking)

    def measure_recovery(self, leases: Sequence[Lease], row: ReportRow, since: float) -> None:
        """Measure how long these shards take to finish or to be claimed again. Ignores the lines of batches."""
        with self._lock:
            self._watches += [RecoveryWatch(lease, since, row) for lease in leases if not lease.of_line]

    def has_ended(self, job_id: str) -> bool:
        with self._lock:
            return (tracked := self.jobs.get(job_id)) is not None and tracked.ended

    def open_jobs(self) -> list[Tracked]:
        """Jobs without a final status that are not reported as lost."""
        with self._lock:
            return [tracked for tracked in self.jobs.values() if not tracked.settled and not tracked.ended]

    @property
    def busy(self) -> bool:
        """Whether jobs, recoveries or result checks are unfinished."""
        with self._lock:
            return bool(self.open_jobs() or self._watches or self._results.pending)

    def report_unfinished(self) -> None:
        """Report every unfinished job and every shard that has not recovered as lost."""
        with self._lock:
            for tracked in self.open_jobs():
                tracked.settled = True
                statuses = ", ".join(sorted(tracked.statuses)) or "never seen"
                tracked.row.lost.append(f"{tracked.job_id} has not ended in time ({statuses})")
            for watch in self._watches:
                watch.row.record_recovery(time.monotonic() - watch.since)
                watch.row.lost.append(f"not claimed again in time: {watch.describe()}")
            self._watches.clear()

    def _track(self, job_id: str) -> Tracked:
        if job_id not in self.jobs:
            self.row.jobs += 1
            self.jobs[job_id] = Tracked(job_id, self.row, time.monotonic())
        return self.jobs[job_id]

    def _assign_case(self, tracked: Tracked, case: Case) -> None:
        """Assign the job to its case. A second job of a case with an Idempotency-Key is reported as duplicated."""
        tracked.case = case
        jobs = self._jobs_of[case.number]
        known = len(jobs)
        jobs.add(tracked.job_id)
        if case.number in self._keyed and len(jobs) > max(known, 1):
            tracked.row.duplicated.append(f"one Idempotency-Key has {len(jobs)} jobs: {', '.join(sorted(jobs))}")

    def _run(self) -> None:
        while not self._stopped.wait(_TICK_SECONDS):
            try:
                self._tick(time.monotonic())
            except redis.RedisError:
                continue

    def _tick(self, now: float) -> None:
        if now - self._scanned >= _SCAN_SECONDS:
            self._scanned = now
            new = self._view.job_ids() - self.jobs.keys()
            numbers = self._view.case_numbers(new)
            with self._lock:
                for job_id in new:
                    tracked = self._track(job_id)
                    if (case := self._cases.get(numbers[job_id] or -1)) is not None:
                        self._assign_case(tracked, case)
        recheck = now - self._rechecked >= _RECHECK_SECONDS
        if recheck:
            self._rechecked = now
        with self._lock:
            watched = {watch.lease.job_id for watch in self._watches}
            wanted = [
                tracked.job_id
                for tracked in self.jobs.values()
                if tracked.job_id in watched or (not tracked.deleted and (recheck or not tracked.ended))
            ]
        seen = self._view.read(wanted)
        now = time.monotonic()
        with self._lock:
            for job_id, job in seen.items():
                self._update(self.jobs[job_id], job)
            self._watches = [watch for watch in self._watches if not self._recovered(watch, seen, now)]

    def _recovered(self, watch: RecoveryWatch, seen: dict[str, Job | None], now: float) -> bool:
        if watch.lease.job_id not in seen:
            return False
        job = seen[watch.lease.job_id]
        watch.record(job, now)
        if not watch.lease.is_over(job):
            return False
        watch.row.record_recovery(now - watch.since)
        if watch.row.recovery_limit and now - watch.since > watch.row.recovery_limit:
            watch.row.notes.append(f"slow: {watch.describe()}")
        return True

    def _update(self, tracked: Tracked, job: Job | None) -> None:
        if job is None:
            tracked.deleted = tracked.ended
            if tracked.seen and not tracked.ended and not tracked.settled:
                tracked.settled = tracked.deleted = True
                tracked.row.lost.append(f"{tracked.job_id} was deleted before it ended")
            return
        tracked.seen = True
        tracked.shards = len(job.shards)
        already_ended = tracked.ended
        if already_ended and job.status not in tracked.statuses:
            tracked.row.duplicated.append(f"{tracked.job_id} was {', '.join(tracked.statuses)} and became {job.status}")
        tracked.statuses.add(job.status)
        twice = [number for number, shard in enumerate(job.shards) if shard.accepted > 1]
        if twice and not tracked.duplicated:
            tracked.duplicated = True
            tracked.row.duplicated.append(f"{tracked.job_id}: shards {twice} have more than one accepted finish")
        if job.status.final and not already_ended and not tracked.settled:
            self._check_ended(tracked, job)

    def _check_ended(self, tracked: Tracked, job: Job) -> None:
        name, kind = tracked.job_id, tracked.case.kind if tracked.case else None
        number = tracked.case.number if tracked.case else -1
        if kind is Kind.POISON:
            if job.status is not JobStatus.FAILED or "died" not in job.failure:
                tracked.row.wrong.append(f"poison job {name} is {job.status}: {job.failure or 'no failure'}")
        elif job.status is JobStatus.SUCCEEDED:
            missing = [number for number, shard in enumerate(job.shards) if shard.accepted != 1]
            if missing:
                counts = [shard.accepted for shard in job.shards]
                tracked.row.wrong.append(f"{name} succeeded with these accepted finishes per shard: {counts}")
            self._results.check(name, tracked.case, tracked.row)
        elif not (job.status is JobStatus.CANCELED and number in self._disconnected):
            tracked.row.lost.append(f"{name} ({kind}) is {job.status}: {job.failure or 'no failure'}")
