"""Batches whose requests arrive in several calls. A finalized one is a job of many requests with the same id."""

import json
from collections.abc import Sequence
from typing import Any

import pydantic_core

from api.batches.creation import BulkJobCreation
from api.batches.service import BatchService
from shared.errors import InvalidRequest, JobNotFound
from shared.ledger.batch_record import BatchKind, BatchRecord, new_batch_id
from shared.ledger.open_batch_ledger import OpenBatch, OpenBatchLedger

AnyBatch = OpenBatch | BatchRecord


class OpenBatches:
    """The open batches of all owners, each for one model. Every method raises StoreUnavailable."""

    def __init__(self, ledger: OpenBatchLedger, batches: BatchService) -> None:
        self._ledger = ledger
        self._batches = batches

    async def create(self, owner: str, model: str, requests: Sequence[dict[str, Any]]) -> OpenBatch:
        """Create an open batch with its first requests, if any. Raises as OpenBatchLedger.create does."""
        return await self._ledger.create(new_batch_id(BatchKind.JOB), owner, model, _encode(requests))

    async def add(self, batch_id: str, owner: str, model: str, requests: Sequence[dict[str, Any]]) -> OpenBatch:
        """Add requests. Raises JobNotFound, and InvalidRequest for a finalized batch."""
        if await self._job(batch_id, owner) is not None:
            raise InvalidRequest("id: the batch is finalized: nothing can be added to it", param="id")
        return await self._ledger.add(batch_id, owner, model, _encode(requests))

    async def finalize(self, batch_id: str, owner: str, model: str) -> BatchRecord:
        """Create the job of a batch. Repeated calls return the same job.

        Raises JobNotFound, InvalidRequest for a batch that is canceled or empty, and what BatchService raises: the
        call can then be repeated.
        """
        try:
            collected = await self._ledger.finalize(batch_id, owner, model)
        except JobNotFound:
            return await self._batches.read(batch_id, owner, BatchKind.JOB)
        body = BulkJobCreation(model=model, requests=[json.loads(request) for request in collected])
        job = await self._batches.create_bulk_job(body, owner, None, batch_id=batch_id)
        await self._ledger.delete(batch_id, owner)
        return job

    async def read(self, batch_id: str, owner: str, model: str) -> AnyBatch:
        """The batch, or its job. Raises JobNotFound."""
        return await self._job(batch_id, owner) or await self._ledger.read(batch_id, owner, model)

    async def cancel(self, batch_id: str, owner: str, model: str) -> AnyBatch:
        """Cancel the batch, or ask for the cancellation of its job. Raises JobNotFound."""
        if await self._job(batch_id, owner) is not None:
            return await self._batches.cancel(batch_id, owner, BatchKind.JOB)
        return await self._ledger.cancel(batch_id, owner, model)

    async def _job(self, batch_id: str, owner: str) -> BatchRecord | None:
        try:
            return await self._batches.read(batch_id, owner, BatchKind.JOB)
        except JobNotFound:
            return None


def _encode(requests: Sequence[dict[str, Any]]) -> list[bytes]:
    return [pydantic_core.to_json(request) for request in requests]
