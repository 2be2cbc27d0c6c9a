"""The context in which one kind of fault is injected: cluster, load, observer, and the choice of workers."""

import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TypeVar

import redis

from shared.ledger.limits import MAX_CRASHES
from tests.chaos.cluster import Cluster, Slot
from tests.chaos.ledger_view import Lease
from tests.chaos.load import LoadGenerator
from tests.chaos.observer import Observer
from tests.chaos.report import ReportRow

T = TypeVar("T")

_PICK_SECONDS = 5.0
_READY_SECONDS = 20.0
_MAX_HITS = MAX_CRASHES - 2
"""No shard is hit more often: beyond its crash budget its job fails, as specified."""


class Stopped(Exception):
    """The run was interrupted."""


class FaultContext:
    """Everything that a fault can use. Methods that wait raise Stopped when the run is interrupted."""

    def __init__(
        self,
        cluster: Cluster,
        observer: Observer,
        load: LoadGenerator,
        row: ReportRow,
        rng: random.Random,
        stopped: threading.Event,
        hits: Counter[tuple[str, int]],
    ) -> None:
        self.cluster = cluster
        self.observer = observer
        self.load = load
        self.row = row
        self.rng = rng
        self._stopped = stopped
        self._hits = hits

    def sleep(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise Stopped

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for the condition. Returns whether it became true within `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.sleep(0.05)
        return True

    def read(self, reader: Callable[[], T]) -> T:
        """Return what the reader returns. Retries while Redis is unreachable."""
        while True:
            try:
                return reader()
            except redis.RedisError:
                self.sleep(0.05)

    def leases(self, pids: Sequence[int] | None = None) -> list[Lease]:
        """Return the leases of these processes, or all. Retries while Redis is unreachable."""
        return self.read(lambda: self.cluster.view.leases(pids))

    def wait_for_workers(self, count: int) -> None:
        """Wait until `count` workers are ready, because shards recover only if another worker can claim them."""
        self.wait_until(lambda: self._ready_workers() >= count, _READY_SECONDS)

    def pick_workers(self, count: int) -> list[Slot]:
        """Return up to `count` workers that hold shards, none of which was hit too often; at least one worker."""
        deadline = time.monotonic() + _PICK_SECONDS
        while time.monotonic() < deadline:
            leases = self.leases()
            found = [slot for slot in self.cluster.workers if slot.alive and self._may_be_hit(slot.pid, leases)]
            if found:
                return self.rng.sample(found, min(count, len(found)))
            self.sleep(0.02)
        return [self.rng.choice(self.cluster.workers)]

    def pick_workers_of_one_job(self) -> list[Slot]:
        """Return two workers that hold shards of the same job; otherwise one worker."""
        deadline = time.monotonic() + _PICK_SECONDS
        while time.monotonic() < deadline:
            by_job: defaultdict[str, list[Slot]] = defaultdict(list)
            for lease in self.leases():
                for slot in self.cluster.workers:
                    if slot.alive and lease.held_by(slot.pid) and slot not in by_job[lease.job_id]:
                        by_job[lease.job_id].append(slot)
            if pairs := [slots for slots in by_job.values() if len(slots) >= 2]:
                return self.rng.sample(self.rng.choice(pairs), 2)
            self.sleep(0.02)
        return self.pick_workers(1)

    def kill(self, slots: Sequence[Slot]) -> None:
        """Kill these workers with SIGKILL, and measure how long their shards take to recover."""
        pids = [slot.pid for slot in slots]
        injected_at = time.monotonic()
        for slot in slots:
            slot.end(signal.SIGKILL)
        self.row.faults += len(slots)
        self.measure_leases_of(pids, injected_at)

    def measure_leases_of(self, pids: Sequence[int], injected_at: float) -> list[Lease]:
        """Measure the recovery of all leases of these dead or paused processes. Returns the leases."""
        leases = self.leases(pids)
        self._hits.update((lease.job_id, lease.shard) for lease in leases)
        self.observer.measure_recovery(leases, self.row, injected_at)
        return leases

    def measure_all_leases(self) -> None:
        """Measure, from now on, the recovery of all current leases."""
        self.observer.measure_recovery(self.leases(), self.row, time.monotonic())

    def _ready_workers(self) -> int:
        try:
            return self.cluster.ready_workers()
        except redis.RedisError:
            return 0

    def _may_be_hit(self, pid: int, leases: Sequence[Lease]) -> bool:
        held = [lease for lease in leases if lease.held_by(pid)]
        return bool(held) and all(self._hits[lease.job_id, lease.shard] < _MAX_HITS for lease in held)
