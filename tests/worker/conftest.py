from collections.abc import Iterator

import pytest

from shared.worker_ledger import WorkerLedger
from tests.shared.conftest import async_client, ledger, ringing_worker, store
from worker.leases import Leases

__all__ = ["async_client", "leases", "ledger", "ringing_worker", "store"]


@pytest.fixture
def leases(ringing_worker: WorkerLedger) -> Iterator[Leases]:
    """Renewing."""
    leases = Leases(ringing_worker)
    leases.start()
    yield leases
    leases.stop()
