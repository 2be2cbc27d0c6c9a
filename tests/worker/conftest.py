from collections.abc import Iterator
from typing import Any

import pytest

from shared.ledger.job_ledger import JobLedger
from shared.ledger.worker_ledger import WorkerLedger
from shared.queue.celery_app import make_celery
from shared.queue.messages import MessageBuilder
from tests.shared.conftest import async_client, enqueueing_worker, ledger, store
from tests.shared.support import StoreView
from tests.worker.support import Pool, UnreliableLedger, WakeUpSender
from worker.dispatch.leases import LeaseKeeper

__all__ = ["async_client", "enqueueing_worker", "leases", "ledger", "pool", "store", "unreliable_ledger", "wake_ups"]


@pytest.fixture
def leases(enqueueing_worker: WorkerLedger) -> Iterator[LeaseKeeper]:
    """A lease keeper whose thread is running."""
    leases = LeaseKeeper(enqueueing_worker)
    leases.start()
    yield leases
    leases.stop()


@pytest.fixture
def wake_ups(redis_client: Any, redis_url: str) -> WakeUpSender:
    return WakeUpSender(redis_client, MessageBuilder(make_celery(redis_url)))


@pytest.fixture
def unreliable_ledger(redis_client: Any, redis_url: str) -> UnreliableLedger:
    return UnreliableLedger(redis_client, MessageBuilder(make_celery(redis_url)))


@pytest.fixture
def pool(ledger: JobLedger, store: StoreView, enqueueing_worker: WorkerLedger, redis_client: Any) -> Pool:
    return Pool(ledger, store, enqueueing_worker, redis_client)
