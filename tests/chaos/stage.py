"""Where one kind of fault is played: a cluster under load, its observer, and the hand that picks victims."""

import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import redis

from shared.ledger.limits import MAX_CRASHES
from tests.chaos.cluster import Cluster, Slot
from tests.chaos.ledger_view import Lease
from tests.chaos.load import Load
from tests.chaos.observer import Observer
from tests.chaos.report import Row

_VICTIM_SECONDS = 5.0
_READY_SECONDS = 20.0
_SPARED_AFTER = MAX_CRASHES - 2
"""A shard that was hit so often is not hit again: over the crash budget its job fails, and rightly so."""


class Stopped(Exception):
    """Somebody wants everything to end now."""


class Stage:
    """What a fault has at hand. `pause` and `until` raise Stopped."""

    def __init__(
        self,
        cluster: Cluster,
        observer: Observer,
        load: Load,
        row: Row,
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

    def pause(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise Stopped

    def until(self, true: Callable[[], bool], seconds: float) -> bool:
        """Wait for it; answers whether it came true in time."""
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                return False
            self.pause(0.05)
        return True

    def leases(self, pids: Sequence[int] | None = None) -> list[Lease]:
        """Who holds what, as soon as Redis can say."""
        while True:
            try:
                return self.cluster.view.leases(pids)
            except redis.RedisError:
                self.pause(0.05)

    def wait_for_workers(self, count: int) -> None:
        """Until so many are up: what nobody is there to take cannot come back."""
        self.until(lambda: self._ready_workers() >= count, _READY_SECONDS)

    def victims(self, count: int) -> list[Slot]:
        """Up to `count` workers that hold work now, none of it too often hit; at least one worker."""
        deadline = time.monotonic() + _VICTIM_SECONDS
        while time.monotonic() < deadline:
            leases = self.leases()
            found = [slot for slot in self.cluster.workers if slot.alive and self._may_hit(slot.pid, leases)]
            if found:
                return self.rng.sample(found, min(count, len(found)))
            self.pause(0.02)
        return [self.rng.choice(self.cluster.workers)]

    def partners(self) -> list[Slot]:
        """Two workers that hold shards of the same job now; any victim when there are none."""
        deadline = time.monotonic() + _VICTIM_SECONDS
        while time.monotonic() < deadline:
            by_job: defaultdict[str, list[Slot]] = defaultdict(list)
            for lease in self.leases():
                for slot in self.cluster.workers:
                    if slot.alive and lease.held_by(slot.pid) and slot not in by_job[lease.job_id]:
                        by_job[lease.job_id].append(slot)
            if pairs := [slots for slots in by_job.values() if len(slots) >= 2]:
                return self.rng.sample(self.rng.choice(pairs), 2)
            self.pause(0.02)
        return self.victims(1)

    def kill(self, slots: Sequence[Slot]) -> None:
        """SIGKILL these, and measure how long their shards take to come back."""
        pids = [slot.pid for slot in slots]
        struck = time.monotonic()
        for slot in slots:
            slot.strike(signal.SIGKILL)
        self.row.faults += len(slots)
        self.orphaned(pids, struck)

    def orphaned(self, pids: Sequence[int], struck: float) -> list[Lease]:
        """Measure the recovery of what these processes hold, which do nothing any more; answers what that is."""
        leases = self.leases(pids)
        self._hits.update((lease.job_id, lease.shard) for lease in leases)
        self.observer.watch(leases, self.row, struck)
        return leases

    def everything_held(self) -> None:
        """Measure, from now on, what anybody holds."""
        self.observer.watch(self.leases(), self.row, time.monotonic())

    def _ready_workers(self) -> int:
        try:
            return self.cluster.ready_workers()
        except redis.RedisError:
            return 0

    def _may_hit(self, pid: int, leases: Sequence[Lease]) -> bool:
        held = [lease for lease in leases if lease.held_by(pid)]
        return bool(held) and all(self._hits[lease.job_id, lease.shard] < _SPARED_AFTER for lease in held)
