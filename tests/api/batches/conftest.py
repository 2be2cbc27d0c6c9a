import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio

from api.payloads.folder import FolderStore
from shared.ledger.job_ledger import JobLedger
from tests.api.batches.support import Bench
from tests.api.conftest import cancel_other_tasks


@pytest.fixture
async def bench(async_client: redis.asyncio.Redis, ledger: JobLedger, tmp_path: Path) -> AsyncIterator[Bench]:
    """The parts of a run. Fails the test when a task raised an error that nothing retrieved."""
    unhandled: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    yield Bench(async_client, ledger, FolderStore(tmp_path / "payloads"))
    await cancel_other_tasks()
    assert unhandled == []


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner looks at its batch often, and retries soon."""
    monkeypatch.setattr("api.batches.batch_writer.RENEW_SECONDS", 0.02)
    monkeypatch.setattr("api.batches.batch_writer._RETRY_SECONDS", 0.02)
    monkeypatch.setattr("api.batches.batch_run._RETRY_SECONDS", 0.02)
    monkeypatch.setattr("api.batches.batch_run._WARM_CHECK_SECONDS", 0.02)


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment holds two or three rows."""
    monkeypatch.setattr("api.batches.output.MAX_SEGMENT_BYTES", 250)
