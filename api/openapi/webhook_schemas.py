"""Schemas and examples of webhooks, for the OpenAPI document."""

from typing import Any, Literal

from pydantic import Field

from api.dialects.schemas import RequestSchema, ResponseSchema
from api.openapi.schemas import EXAMPLE_CREATED, EXAMPLE_JOB_ID
from shared.ledger.delivery_record import DeliveryStatus
from shared.webhooks import WebhookEvent

EXAMPLE_ENDPOINT_ID = "we_3c9d0f1e2b4a59687f6e5d4c"
EXAMPLE_DELIVERY_ID = f"msg_{EXAMPLE_JOB_ID}_1795222196021_1"
_URL = "https://example.com/rerank-events"
_SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


class NewEndpoint(RequestSchema):
    """A webhook to create."""

    url: str = Field(description="An https URL with a public address.")
    events: list[WebhookEvent] | None = Field(None, description="Default: all.")
    description: str | None = Field(None, max_length=512)


class Endpoint(ResponseSchema):
    """A webhook. `events` null: all. A disabled one gets no more events: its receiver returned 410."""

    id: str
    object: Literal["webhook"]
    url: str
    events: list[WebhookEvent] | None
    description: str | None
    status: Literal["enabled", "disabled"]
    disabled_reason: str | None
    created: float


class EndpointWithSecret(Endpoint):
    """A webhook with its secret, which signs what is sent to it."""

    secret: str


class Endpoints(ResponseSchema):
    """All webhooks of a key, oldest first."""

    object: Literal["list"]
    data: list[Endpoint]


class DefaultSecret(ResponseSchema):
    """The secret that signs deliveries to URLs that were given with one request."""

    key: str


class DeliveryTest(ResponseSchema):
    """The outcome of a test. `error` is the reason when no response came."""

    id: str
    object: Literal["webhook.test"]
    delivered: bool
    response_status: int | None
    error: str | None
    seconds: float


class Delivery(ResponseSchema):
    """An event for one receiver; `id` is the `webhook-id` of every try. Times are Unix seconds.

    `job` or `batch` is what ended. `response_status` and `error` are those of the last try.
    """

    id: str
    object: Literal["webhook.delivery"]
    type: WebhookEvent
    job: str | None
    batch: str | None
    url: str
    status: DeliveryStatus
    tries: int
    created: float
    last_try: float | None
    next_try: float | None
    ended: float | None
    response_status: int | None
    error: str | None


class Deliveries(ResponseSchema):
    """A page of deliveries, newest first. `next` is `after` of the next page, null on the last one."""

    object: Literal["list"]
    data: list[Delivery]
    has_more: bool
    next: str | None


EXAMPLE_NEW_ENDPOINT = {"url": _URL, "events": ["job.failed", "batch.ended"]}
EXAMPLE_ENDPOINT: dict[str, Any] = {
    "id": EXAMPLE_ENDPOINT_ID,
    "object": "webhook",
    "url": _URL,
    "events": ["job.failed", "batch.ended"],
    "description": None,
    "status": "enabled",
    "disabled_reason": None,
    "created": float(EXAMPLE_CREATED),
}
EXAMPLE_SECRET_ENDPOINT = EXAMPLE_ENDPOINT | {"secret": _SECRET}
EXAMPLE_DEFAULT_SECRET = {"key": _SECRET}
EXAMPLE_TEST = {
    "id": "msg_test_5e4d3c2b1a0f9e8d7c6b5a40",
    "object": "webhook.test",
    "delivered": True,
    "response_status": 204,
    "error": None,
    "seconds": 0.042,
}
EXAMPLE_DELIVERY: dict[str, Any] = {
    "id": EXAMPLE_DELIVERY_ID,
    "object": "webhook.delivery",
    "type": "job.failed",
    "job": EXAMPLE_JOB_ID,
    "batch": None,
    "url": _URL,
    "status": "pending",
    "tries": 2,
    "created": EXAMPLE_CREATED + 0.021,
    "last_try": EXAMPLE_CREATED + 5.4,
    "next_try": EXAMPLE_CREATED + 15.9,
    "ended": None,
    "response_status": 503,
    "error": None,
}
EXAMPLE_DELIVERIES = {
    "object": "list",
    "data": [EXAMPLE_DELIVERY],
    "has_more": True,
    "next": f"1795222196021-{EXAMPLE_DELIVERY_ID}",
}
