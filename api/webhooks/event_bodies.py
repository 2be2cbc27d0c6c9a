"""Builds the bodies of deliveries: the event, with the job or batch as its caller would read it now."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pydantic_core

from shared.errors import StoreDamaged
from shared.ledger.batch_ledger import BatchLedger
from shared.ledger.batch_record import BULK_JOB_PREFIX, BatchRecord
from shared.ledger.delivery_record import DeliveryRecord
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobRecord
from shared.webhooks import WebhookEvent, WebhookForm

MAX_BODY_BYTES = 1 << 20
"""A larger body is replaced by one with the id and the status alone."""

_RUNPOD_STATUSES = {
    "succeeded": "COMPLETED",
    "completed": "COMPLETED",
    "failed": "FAILED",
    "canceled": "CANCELLED",
    "cancelled": "CANCELLED",
    "expired": "TIMED_OUT",
}
"""RunPod's names for the ends of jobs and batches."""

Build = Callable[[DeliveryRecord], Awaitable[bytes]]
"""Builds the body of a delivery, which may have lost its job by now."""


class EventBodies:
    """Builds each delivery's body in the form that its receiver expects."""

    def __init__(
        self,
        ledger: JobLedger,
        batches: BatchLedger,
        *,
        describe_job: Callable[[JobRecord], dict[str, Any]],
        describe_batch: Callable[[BatchRecord], dict[str, Any]],
    ) -> None:
        """`describe_job` and `describe_batch`: as the routes show them."""
        self._ledger = ledger
        self._batches = batches
        self._describe_job = describe_job
        self._describe_batch = describe_batch
        self._forms: dict[WebhookForm, Build] = {
            WebhookForm.STANDARD: self._standard,
            WebhookForm.RUNPOD: _runpod,
        }

    def register(self, form: WebhookForm, build: Build) -> None:
        """Let `build` make the bodies of a form."""
        self._forms[form] = build

    async def build(self, delivery: DeliveryRecord) -> bytes:
        """The body, in JSON. Raises StoreUnavailable."""
        body = await self._forms[delivery.form](delivery)
        return body if len(body) <= MAX_BODY_BYTES else _event(delivery, _bare(delivery))

    async def _standard(self, delivery: DeliveryRecord) -> bytes:
        try:
            data = await self._data(delivery)
        except StoreDamaged:
            data = None
        return _event(delivery, data or _bare(delivery))

    async def _data(self, delivery: DeliveryRecord) -> dict[str, Any] | None:
        """The job or batch; None when it no longer exists, or has another status by now."""
        if delivery.event is WebhookEvent.BATCH_ENDED:
            batch = await self._batches.read(delivery.subject)
            return self._describe_batch(batch) if batch and batch.status == delivery.final_status else None
        job = await self._ledger.read(delivery.subject)
        return self._describe_job(job) if job and job.status == delivery.final_status else None


def _event(delivery: DeliveryRecord, data: dict[str, Any]) -> bytes:
    return event_body(delivery.event, delivery.created_ms, data)


def event_body(event: str, created_ms: int, data: dict[str, Any]) -> bytes:
    """An event in Standard Webhooks' form."""
    at = datetime.fromtimestamp(created_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return pydantic_core.to_json({"type": event, "timestamp": at, "data": data})


def _bare(delivery: DeliveryRecord) -> dict[str, Any]:
    is_batch = delivery.event is WebhookEvent.BATCH_ENDED and not delivery.subject.startswith(BULK_JOB_PREFIX)
    return {"id": delivery.subject, "object": "batch" if is_batch else "job", "status": delivery.final_status}


async def _runpod(delivery: DeliveryRecord) -> bytes:
    return pydantic_core.to_json(describe_runpod_end(delivery))


def describe_runpod_end(delivery: DeliveryRecord) -> dict[str, Any]:
    """The id and the status of a job that ended, as RunPod's API names it."""
    return {"id": delivery.subject, "status": _RUNPOD_STATUSES[delivery.final_status]}
