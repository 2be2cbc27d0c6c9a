"""Describes webhook endpoints and deliveries as their owner sees them. Times are Unix seconds. Pure functions."""

from typing import Any

from api.webhooks.endpoints import Endpoint
from shared.ledger.batch_record import BULK_JOB_PREFIX
from shared.ledger.delivery_record import DeliveryRecord
from shared.webhooks import WebhookEvent


def describe_endpoint(endpoint: Endpoint, *, with_secret: bool = False) -> dict[str, Any]:
    """An endpoint. `events` is null when it gets all of them."""
    described: dict[str, Any] = {
        "id": endpoint.id,
        "object": "webhook",
        "url": endpoint.url,
        "events": list(endpoint.events) or None,
        "description": endpoint.description,
        "status": "enabled" if endpoint.disabled is None else "disabled",
        "disabled_reason": endpoint.disabled,
        "created": round(endpoint.created, 3),
    }
    return described | {"secret": endpoint.secret} if with_secret else described


def describe_delivery(record: DeliveryRecord) -> dict[str, Any]:
    """A delivery; its id is the `webhook-id` of every try."""
    is_batch = record.event is WebhookEvent.BATCH_ENDED and not record.subject.startswith(BULK_JOB_PREFIX)
    return {
        "id": record.id,
        "object": "webhook.delivery",
        "type": record.event,
        "job": None if is_batch else record.subject,
        "batch": record.subject if is_batch else None,
        "url": record.url,
        "status": record.status,
        "tries": record.tries,
        "created": record.created_ms / 1000,
        "last_try": _seconds(record.tried_ms),
        "next_try": _seconds(record.due_ms),
        "ended": _seconds(record.ended_ms),
        "response_status": record.last_status,
        "error": record.last_error,
    }


def _seconds(milliseconds: int) -> float | None:
    return milliseconds / 1000 if milliseconds else None
