"""Creates batches and jobs of many requests, and reads, lists, cancels and deletes them. Runs none: see Runner."""

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from time import time
from typing import Any

import pydantic_core
from pydantic import BaseModel

from api.batches.creation import BatchCreation, BulkJobCreation, seconds_of
from api.batches.line_requests import dialect_at
from api.dialects.registry import Family
from api.files.service import FileService
from api.payloads.base import PayloadStore
from api.payloads.names import PayloadNames
from api.webhooks.subscriptions import Subscriptions
from shared.errors import BatchNotFound, IdempotencyConflict, InvalidRequest, JobNotFound, RateLimited
from shared.ledger.batch_ledger import BatchLedger
from shared.ledger.batch_record import BatchKind, BatchRecord, BatchStatus, new_batch_id
from shared.ledger.job_record import Position
from shared.models import ModelRegistry
from shared.owner_limits import OwnerTerms

_BYTES_PER_TOKEN = 4
BULK_ENDPOINT = "/superset/v1/rerank"
"""The dialect of jobs of many requests, whatever the operator serves at the root."""


class BatchService:
    """The batches of all owners. Every method raises StoreUnavailable when Redis is unreachable."""

    def __init__(
        self,
        ledger: BatchLedger,
        files: FileService,
        payloads: PayloadStore,
        names: PayloadNames,
        models: ModelRegistry,
        root: Family,
        *,
        terms_of: Callable[[str], OwnerTerms],
        on_created: Callable[[], None],
        retain_seconds: float,
        webhooks: Subscriptions | None = None,
    ) -> None:
        """`on_created` is called when there is a new batch to run. `retain_seconds`: how long results are kept.

        `webhooks` None: batches report nothing.
        """
        self._ledger = ledger
        self._files = files
        self._payloads = payloads
        self._names = names
        self._models = models
        self._root = root
        self._terms_of = terms_of
        self._on_created = on_created
        self._retain_seconds = retain_seconds
        self._webhooks = webhooks

    async def create(self, body: BatchCreation, owner: str, idempotency: str | None) -> BatchRecord:
        """Create a batch.

        Raises InvalidRequest, StoredFileNotFound, ModelNotFound, IdempotencyConflict or RateLimited.
        """
        file = await self._files.read(body.input_file_id, owner)
        endpoint = body.endpoint if body.endpoint.startswith("/") else f"/{body.endpoint}"
        if dialect_at(endpoint, self._root) is None:
            raise InvalidRequest(
                f"endpoint must be the path of a rerank route, for example /v1/rerank or /v1/score, not "
                f"{body.endpoint[:100]!r}",
                param="endpoint",
            )
        self._require_model(body.request_params, "request_params")
        expiry = body.output_expires_after
        record = BatchRecord(
            id=new_batch_id(BatchKind.BATCH),
            kind=BatchKind.BATCH,
            owner=owner,
            status=BatchStatus.VALIDATING,
            endpoint=endpoint,
            window=body.completion_window,
            input_name=file.source_name,
            input_bytes=file.size,
            created_ms=0,
            expires_ms=0,
            retain_seconds=int(self._retain_seconds if expiry is None else expiry.seconds),
            input_file=file.id,
            defaults=body.request_params,
            metadata=body.metadata,
            reserved_tokens=file.size // _BYTES_PER_TOKEN + 1,
        )
        return await self._create(record, body, idempotency)

    async def create_bulk_job(
        self, body: BulkJobCreation, owner: str, idempotency: str | None, *, batch_id: str | None = None
    ) -> BatchRecord:
        """Create a job of many requests, with a new id or `batch_id`: a repeated call with that returns the same job.

        Raises what `create` raises, PayloadsFull and PayloadsUnavailable.
        """
        self._require_model(body.all_defaults, "model")
        _require_unique_ids(body.requests)
        batch_id = batch_id or new_batch_id(BatchKind.JOB)
        name = await self._names.batch_input(batch_id)
        seconds = seconds_of(body.deadline)
        size = await self._payloads.write(
            name, _lines(body.requests), expires_at=time() + seconds + self._retain_seconds
        )
        record = BatchRecord(
            id=batch_id,
            kind=BatchKind.JOB,
            owner=owner,
            status=BatchStatus.VALIDATING,
            endpoint=BULK_ENDPOINT,
            window=body.deadline,
            input_name=name,
            input_bytes=size,
            created_ms=0,
            expires_ms=0,
            retain_seconds=int(self._retain_seconds),
            wake=body.wake,
            defaults=body.all_defaults,
            metadata=body.metadata,
            reserved_tokens=size // _BYTES_PER_TOKEN + 1,
        )
        try:
            created = await self._create(record, body, idempotency)
        except (IdempotencyConflict, InvalidRequest, RateLimited):
            # After another error the batch may exist, and the sweeper deletes the input when it does not.
            await self._payloads.delete(name)
            raise
        if created.id != batch_id:
            await self._payloads.delete(name)
        return created

    def _require_model(self, defaults: Mapping[str, Any] | None, param: str) -> None:
        """Raise ModelNotFound for a model that all lines would share."""
        model = (defaults or {}).get("model")
        if model is not None and not isinstance(model, str):
            raise InvalidRequest(f"{param}: model must be a string", param=param)
        self._models.resolve(model)

    async def _create(
        self, record: BatchRecord, body: BatchCreation | BulkJobCreation, idempotency: str | None
    ) -> BatchRecord:
        batch_id = await self._ledger.create(
            record,
            seconds=seconds_of(record.window),
            limits=self._terms_of(record.owner).limits,
            idempotency=None if idempotency is None else (idempotency, _fingerprint(body)),
            webhooks="" if self._webhooks is None else await self._webhooks.of_batch(record.owner, body.webhook),
        )
        self._on_created()
        return await self.read(batch_id, record.owner, record.kind)

    async def read(self, batch_id: str, owner: str, kind: BatchKind) -> BatchRecord:
        """A batch's record. Raises BatchNotFound, or JobNotFound for a job of many requests."""
        record = await self._ledger.read(batch_id)
        if record is None or record.owner != owner or record.kind is not kind:
            error = BatchNotFound if kind is BatchKind.BATCH else JobNotFound
            raise error(f"there is no {kind} {batch_id[:100]!r}", param="id")
        return record

    async def page(self, owner: str, kind: BatchKind, limit: int, after: str | None) -> tuple[list[BatchRecord], bool]:
        """Up to `limit` batches behind the batch `after`, newest first; and whether there are more."""
        position = None
        if after is not None:
            record = await self.read(after, owner, kind)
            position = Position(record.created_ms, record.id)
        return await self._ledger.page(kind, owner, limit, position)

    async def cancel(self, batch_id: str, owner: str, kind: BatchKind) -> BatchRecord:
        """Ask for the cancellation of a batch. One that has ended is unchanged. Raises as `read` does."""
        await self.read(batch_id, owner, kind)
        await self._ledger.cancel(batch_id)
        self._on_created()
        return await self.read(batch_id, owner, kind)

    async def delete(self, batch_id: str, owner: str, kind: BatchKind) -> None:
        """Delete a batch and its results; one that runs is cancelled. Raises as `read` does."""
        record = await self.read(batch_id, owner, kind)
        segments = await self._ledger.segments(batch_id)
        await self._ledger.delete(record)
        for segment in segments:
            await self._payloads.delete(segment.name)
        if record.input_file is None:
            await self._payloads.delete(record.input_name)


def _fingerprint(body: BaseModel) -> str:
    return hashlib.sha256(
        json.dumps(body.model_dump(mode="json", exclude={"webhook"}), sort_keys=True).encode()
    ).hexdigest()


def _require_unique_ids(requests: list[dict[str, Any]]) -> None:
    seen: set[str] = set()
    for position, request in enumerate(requests):
        custom_id = request.get("custom_id")
        if isinstance(custom_id, str) and custom_id in seen:
            field = f"requests[{position}].custom_id"
            raise InvalidRequest(f"{field} is that of an earlier request", param=field)
        if isinstance(custom_id, str):
            seen.add(custom_id)


async def _lines(requests: list[dict[str, Any]]) -> AsyncIterator[bytes]:
    for request in requests:
        yield pydantic_core.to_json(request) + b"\n"
