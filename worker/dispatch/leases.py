"""Renews the leases of this worker's shards together, and cancels shards whose lease is lost.

A worker that cannot reach Redis continues scoring: when Redis is back, the lease's token decides whether the result
counts.
"""

import logging
import threading

from shared.errors import StoreUnavailable
from shared.ledger.verdicts import RenewVerdict, ShardLease
from shared.ledger.worker_ledger import WorkerLedger
from worker.engines.base import Cancellation

logger = logging.getLogger(__name__)

RENEW_SECONDS = 0.5
"""Also how soon the worker notices that a job was cancelled."""


class HeldShard:
    """One shard in progress. `released`: it was cancelled because this worker stops, not because its job ended."""

    def __init__(self, lease: ShardLease) -> None:
        self.lease = lease
        self.cancellation = Cancellation()
        self.released = False

    def release(self) -> None:
        """Stop scoring, so that another worker scores the shard."""
        self.released = True
        self.cancellation.cancel()


class LeaseKeeper:
    """Renews all held leases. Shared by the worker's threads."""

    def __init__(self, ledger: WorkerLedger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._held: dict[ShardLease, HeldShard] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=5)

    def hold(self, lease: ShardLease) -> HeldShard:
        """Renew the lease until `drop`; cancels the shard when the lease is lost or the job has ended."""
        held = HeldShard(lease)
        with self._lock:
            self._held[lease] = held
        return held

    def drop(self, lease: ShardLease) -> None:
        """Stop renewing this lease."""
        with self._lock:
            self._held.pop(lease, None)

    def release_all(self) -> int:
        """Release all held shards. Returns how many."""
        held = self._snapshot()
        for shard in held:
            shard.release()
        return len(held)

    def _snapshot(self) -> list[HeldShard]:
        with self._lock:
            return list(self._held.values())

    def _run(self) -> None:
        reachable = True
        while not self._stopped.wait(RENEW_SECONDS):
            try:
                self._renew()
            except StoreUnavailable as error:
                if reachable:
                    logger.warning("leases cannot be renewed, scoring continues", extra={"error": error})
                reachable = False
            else:
                reachable = True

    def _renew(self) -> None:
        held = self._snapshot()
        if not held:
            return
        for shard, verdict in zip(held, self._ledger.renew([shard.lease for shard in held]), strict=True):
            if verdict is not RenewVerdict.LIVE and not shard.cancellation.cancelled:
                logger.info("a lease was lost, scoring stops", extra=shard.lease.log_fields(verdict=verdict))
                shard.cancellation.cancel()
