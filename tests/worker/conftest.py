from collections.abc import Iterator
from typing import Any

import pytest

from shared.ledger.job_ledger import Ledger
from shared.ledger.worker_ledger import WorkerLedger
from shared.queue.celery_app import Envelopes, make_celery
from tests.shared.conftest import async_client, ledger, ringing_worker, store
from tests.shared.support import StoreView
from tests.worker.support import Bells, Pool, ShakyLedger
from worker.dispatch.leases import Leases

__all__ = ["async_client", "bells", "leases", "ledger", "pool", "ringing_worker", "shaky", "store"]


@pytest.fixture
def leases(ringing_worker: WorkerLedger) -> Iterator[Leases]:
    """Renewing."""
    leases = Leases(ringing_worker)
    leases.start()
    yield leases
    leases.stop()


@pytest.fixture
def bells(redis_client: Any, redis_url: str) -> Bells:
    return Bells(redis_client, Envelopes(make_celery(redis_url)))


@pytest.fixture
def shaky(redis_client: Any, redis_url: str) -> ShakyLedger:
    return ShakyLedger(redis_client, Envelopes(make_celery(redis_url)))


@pytest.fixture
def pool(ledger: Ledger, store: StoreView, ringing_worker: WorkerLedger) -> Pool:
    return Pool(ledger, store, ringing_worker)
