"""Batches for the tests of the ledger and of the API."""

from typing import Any

from shared.ledger.batch_ledger import BatchLedger
from shared.ledger.batch_record import BatchKind, BatchRecord, BatchStatus, Segment
from shared.owner_limits import OwnerLimits
from tests.shared.support import OWNER

BATCH = "batch_1"
TOKEN = "token-1"


def make_batch(batch_id: str = BATCH, *, kind: BatchKind = BatchKind.BATCH, **fields: Any) -> BatchRecord:
    """A batch that is to be created."""
    values: dict[str, Any] = {
        "owner": OWNER,
        "status": BatchStatus.VALIDATING,
        "endpoint": "/v1/rerank",
        "window": "1h",
        "input_name": "space/files/file-1",
        "input_bytes": 100,
        "created_ms": 0,
        "expires_ms": 0,
        "retain_seconds": 600,
        "reserved_tokens": 25,
    }
    return BatchRecord(batch_id, kind, **values | fields)


async def create(
    batches: BatchLedger,
    record: BatchRecord | None = None,
    *,
    seconds: float = 3600.0,
    limits: OwnerLimits | None = None,
    idempotency: tuple[str, str] | None = None,
) -> BatchRecord:
    """Create a batch, and read it."""
    batch_id = await batches.create(
        record or make_batch(), seconds=seconds, limits=limits or OwnerLimits(), idempotency=idempotency
    )
    return await read(batches, batch_id)


async def read(batches: BatchLedger, batch_id: str = BATCH) -> BatchRecord:
    """The record of an existing batch."""
    record = await batches.read(batch_id)
    assert record is not None
    return record


def make_segment(name: str = "space/batches/batch_1/segment", rows: int = 2) -> Segment:
    return Segment(name, rows, 10 * rows, 5)
