"""The body of RunPod's webhooks: the job as `status` returns it."""

from collections.abc import Awaitable, Callable

import pydantic_core

from api.dependencies import AppState
from api.routes import bulk_jobs
from api.routes.runpod.statuses import IN_PROGRESS, IN_QUEUE, describe
from api.webhooks.event_bodies import MAX_BODY_BYTES, describe_runpod_end
from shared.errors import JobNotFound, StoreDamaged
from shared.ledger.batch_record import BatchKind
from shared.ledger.delivery_record import DeliveryRecord


def body_builder(state: AppState) -> Callable[[DeliveryRecord], Awaitable[bytes]]:
    """Builds the body of a delivery. It has no output when that is too large, the job is deleted, or it was retried."""

    async def build(delivery: DeliveryRecord) -> bytes:
        end = describe_runpod_end(delivery)
        try:
            described = await _describe(state, delivery.subject, delivery.owner)
        except (JobNotFound, StoreDamaged):
            described = end
        body = pydantic_core.to_json(end if described["status"] in (IN_QUEUE, IN_PROGRESS) else described)
        return body if len(body) <= MAX_BODY_BYTES else pydantic_core.to_json(end)

    return build


async def _describe(state: AppState, job_id: str, owner: str) -> dict[str, object]:
    if bulk_jobs.is_bulk_job(job_id):
        return await describe(state, await state.batches.read(job_id, owner, BatchKind.JOB), job_id)
    return await describe(state, await state.service.job(job_id, owner), job_id)
