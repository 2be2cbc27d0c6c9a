"""Follows every job that was ever answered or is found in Redis, from its acceptance until it is forgotten.

Says of each whether it was lost, done twice or done wrongly, and how long work took to come back after a fault.
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
from tests.chaos.report import Row
from tests.chaos.results import ResultReader, difference

_TICK_SECONDS = 0.1
_SCAN_SECONDS = 0.5
_ENDED_AGAIN_SECONDS = 1.0


@dataclass(slots=True)
class Tracked:
    """One job. `accepted` holds the most finishes ever seen for each shard."""

    job_id: str
    row: Row
    since: float
    case: Case | None = None
    states: set[JobStatus] = field(default_factory=set)
    seen: bool = False
    gone: bool = False
    settled: bool = False
    duplicated: bool = False
    shards: int = 0

    @property
    def ended(self) -> bool:
        return any(state.final for state in self.states)


@dataclass(frozen=True, slots=True)
class Watch:
    """A lease that was held when a fault struck. `trail` is what became of the shard, with the seconds since then."""

    lease: Lease
    since: float
    row: Row
    trail: list[tuple[float, str]] = field(default_factory=list)

    def saw(self, job: Job | None, now: float) -> None:
        said = "gone" if job is None else f"{job.status}: {job.shards[self.lease.shard]}"
        if not self.trail or self.trail[-1][1] != said:
            self.trail.append((now - self.since, said))

    def story(self) -> str:
        steps = "; ".join(f"{seconds:.1f} s {said}" for seconds, said in self.trail)
        return f"{self.lease.job_id}/{self.lease.shard} of {self.lease.token.split(':')[0]}: {steps}"


class Observer:
    """Runs on threads of its own between `start` and `stop`. `row` gets the jobs that are found from then on."""

    def __init__(self, view: LedgerView, urls: Sequence[str], row: Row) -> None:
        self.row = row
        self.jobs: dict[str, Tracked] = {}
        self._view = view
        self._cases: dict[int, Case] = {}
        self._broken: set[int] = set()
        self._keyed: set[int] = set()
        self._jobs_of: defaultdict[int, set[str]] = defaultdict(set)
        self._watched: list[Watch] = []
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._results = ResultReader(urls)
        self._scanned = self._looked_again = 0.0
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)

    def start(self) -> None:
        self._results.start()
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._results.stop()

    def expect(self, case: Case) -> None:
        """A request that is about to be sent."""
        with self._lock:
            self._cases[case.number] = case

    def broke(self, case: Case) -> None:
        """Its caller lost the connection: its job, if there is one, may also be canceled."""
        with self._lock:
            self._broken.add(case.number)

    def accepted(self, job_id: str, case: Case, *, keyed: bool = False) -> None:
        """A caller was told of this job; `keyed`: under an Idempotency-Key, so that there must be no other."""
        with self._lock:
            if keyed:
                self._keyed.add(case.number)
            self._belongs(self._track(job_id), case)

    def answered(self, job_id: str, case: Case, ranking: Ranking) -> None:
        """A waiting caller got this ranking."""
        self.accepted(job_id, case)
        with self._lock:
            self.jobs[job_id].row.wrong += difference(job_id, case, ranking)

    def watch(self, leases: Sequence[Lease], row: Row, since: float) -> None:
        """Measure how long these shards take to end or to be claimed again."""
        with self._lock:
            self._watched += [Watch(lease, since, row) for lease in leases]

    def has_ended(self, job_id: str) -> bool:
        with self._lock:
            return (tracked := self.jobs.get(job_id)) is not None and tracked.ended

    def open_jobs(self) -> list[Tracked]:
        """Jobs that are in no final state yet."""
        with self._lock:
            return [tracked for tracked in self.jobs.values() if not tracked.settled and not tracked.ended]

    @property
    def busy(self) -> bool:
        """Whether anything is still to be waited for."""
        with self._lock:
            return bool(self.open_jobs() or self._watched or self._results.pending)

    def close_books(self) -> None:
        """Time is up: what has not ended is lost, what has not recovered never did."""
        with self._lock:
            for tracked in self.open_jobs():
                tracked.settled = True
                states = ", ".join(sorted(tracked.states)) or "never seen"
                tracked.row.lost.append(f"{tracked.job_id} has not ended in time ({states})")
            for watch in self._watched:
                watch.row.recovered(time.monotonic() - watch.since)
                watch.row.lost.append(f"not claimed again in time: {watch.story()}")
            self._watched.clear()

    def _track(self, job_id: str) -> Tracked:
        if job_id not in self.jobs:
            self.row.jobs += 1
            self.jobs[job_id] = Tracked(job_id, self.row, time.monotonic())
        return self.jobs[job_id]

    def _belongs(self, tracked: Tracked, case: Case) -> None:
        """The job is of this case; two jobs of one case are one too many when it was sent with a key."""
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
                        self._belongs(tracked, case)
        again = now - self._looked_again >= _ENDED_AGAIN_SECONDS
        if again:
            self._looked_again = now
        with self._lock:
            watched = {watch.lease.job_id for watch in self._watched}
            wanted = [
                tracked.job_id
                for tracked in self.jobs.values()
                if tracked.job_id in watched or (not tracked.gone and (again or not tracked.ended))
            ]
        seen = self._view.read(wanted)
        now = time.monotonic()
        with self._lock:
            for job_id, job in seen.items():
                self._look_at(self.jobs[job_id], job)
            self._watched = [watch for watch in self._watched if not self._recovered(watch, seen, now)]

    def _recovered(self, watch: Watch, seen: dict[str, Job | None], now: float) -> bool:
        if watch.lease.job_id not in seen:
            return False
        job = seen[watch.lease.job_id]
        watch.saw(job, now)
        if not watch.lease.is_over(job):
            return False
        watch.row.recovered(now - watch.since)
        if watch.row.recovery_limit and now - watch.since > watch.row.recovery_limit:
            watch.row.notes.append(f"slow: {watch.story()}")
        return True

    def _look_at(self, tracked: Tracked, job: Job | None) -> None:
        if job is None:
            tracked.gone = tracked.ended
            if tracked.seen and not tracked.ended and not tracked.settled:
                tracked.settled = tracked.gone = True
                tracked.row.lost.append(f"{tracked.job_id} vanished before it had ended")
            return
        tracked.seen = True
        tracked.shards = len(job.shards)
        had_ended = tracked.ended
        if had_ended and job.status not in tracked.states:
            tracked.row.duplicated.append(f"{tracked.job_id} was {', '.join(tracked.states)}, now it is {job.status}")
        tracked.states.add(job.status)
        twice = [number for number, shard in enumerate(job.shards) if shard.accepted > 1]
        if twice and not tracked.duplicated:
            tracked.duplicated = True
            tracked.row.duplicated.append(f"{tracked.job_id}: shards {twice} have more than one accepted finish")
        if job.status.final and not had_ended and not tracked.settled:
            self._ended(tracked, job)

    def _ended(self, tracked: Tracked, job: Job) -> None:
        name, kind = tracked.job_id, tracked.case.kind if tracked.case else None
        number = tracked.case.number if tracked.case else -1
        if kind is Kind.POISON:
            if job.status is not JobStatus.FAILED or "died" not in job.failure:
                tracked.row.wrong.append(f"poison job {name} is {job.status}: {job.failure or 'no failure'}")
        elif job.status is JobStatus.SUCCEEDED:
            missing = [number for number, shard in enumerate(job.shards) if shard.accepted != 1]
            if missing:
                counts = [shard.accepted for shard in job.shards]
                tracked.row.wrong.append(f"{name} has succeeded, accepted finishes a shard: {counts}")
            self._results.read(name, tracked.case, tracked.row)
        elif not (job.status is JobStatus.CANCELED and number in self._broken):
            tracked.row.lost.append(f"{name} ({kind}) is {job.status}: {job.failure or 'no failure'}")
