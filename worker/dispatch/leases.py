"""The shards in this worker's hands: renewed together, several times a lease, and cancelled when they are lost.

A worker that cannot reach Redis goes on computing: whether its result counts is decided by its token, when Redis is
there again.
"""

import logging
import threading

from shared.errors import StoreUnavailable
from shared.ledger.verdicts import RenewVerdict, ShardLease
from shared.ledger.worker_ledger import WorkerLedger
from worker.engines.base import Cancellation

logger = logging.getLogger(__name__)

RENEW_SECONDS = 0.5
"""Also how soon a cancelled job is noticed here."""


class HeldShard:
    """One shard in work. `released`: it was cancelled because this worker stops, not because nobody wants it."""

    def __init__(self, lease: ShardLease) -> None:
        self.lease = lease
        self.cancellation = Cancellation()
        self.released = False

    def release(self) -> None:
        """Stop scoring; the shard is for somebody else."""
        self.released = True
        self.cancellation.cancel()


class LeaseKeeper:
    """Renews what is held. Shared by all of the worker's threads."""

    def __init__(self, ledger: WorkerLedger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._held: dict[ShardLease, HeldShard] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Renew nothing any more."""
        self._stopped.set()
        self._thread.join(timeout=5)

    def hold(self, lease: ShardLease) -> HeldShard:
        """Keep the shard until it is dropped; its cancellation is called when it is lost or unwanted."""
        held = HeldShard(lease)
        with self._lock:
            self._held[lease] = held
        return held

    def drop(self, lease: ShardLease) -> None:
        """Keep the shard no longer."""
        with self._lock:
            self._held.pop(lease, None)

    def release_all(self) -> int:
        """Stop scoring everything that is held; answers how much that was."""
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
                    logger.warning("leases cannot be renewed, scoring goes on: %s", error)
                reachable = False
            else:
                reachable = True

    def _renew(self) -> None:
        held = self._snapshot()
        if not held:
            return
        for shard, verdict in zip(held, self._ledger.renew([shard.lease for shard in held]), strict=True):
            if verdict is not RenewVerdict.LIVE and not shard.cancellation.cancelled:
                logger.info("shard %s/%d: %s, stopped", shard.lease.job_id, shard.lease.shard, verdict)
                shard.cancellation.cancel()
