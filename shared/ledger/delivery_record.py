"""A webhook delivery as the ledger stores it: one event for one receiver. Does not talk to Redis."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from shared.webhooks import WebhookEvent, WebhookForm

DEFAULT_ENDPOINT = "default"
"""The endpoint of deliveries to URLs that were given with one request. It has a secret and no URL."""


class DeliveryStatus(StrEnum):
    """The status of a delivery; the last two are final."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """One delivery. Times are Unix milliseconds of Redis's clock, 0 while not reached.

    `subject` is the job or batch that ended with `final_status`. `tries` counts since it was last enqueued, `due_ms`
    is when it is tried next. `body` None: it was not tried yet. `secret` None: that of the endpoint signs it.
    """

    id: str
    owner: str
    endpoint: str
    url: str
    lane: str
    form: WebhookForm
    event: WebhookEvent
    subject: str
    final_status: str
    status: DeliveryStatus
    created_ms: int
    enqueued_ms: int
    tries: int = 0
    due_ms: int = 0
    tried_ms: int = 0
    ended_ms: int = 0
    last_status: int | None = None
    last_error: str | None = None
    secret: str | None = None
    body: bytes | None = None

    @classmethod
    def from_hash(cls, delivery_id: str, fields: Mapping[bytes, bytes]) -> "DeliveryRecord":
        """Parse the hash of a delivery. Raises KeyError or ValueError when it is not one."""

        def text(name: bytes) -> str:
            return fields[name].decode()

        def number(name: bytes) -> int:
            return int(fields.get(name, b"0"))

        return cls(
            id=delivery_id,
            owner=text(b"owner"),
            endpoint=text(b"endpoint"),
            url=text(b"url"),
            lane=text(b"lane"),
            form=WebhookForm(text(b"form")),
            event=WebhookEvent(text(b"event")),
            subject=text(b"subject"),
            final_status=text(b"final_status"),
            status=DeliveryStatus(text(b"status")),
            created_ms=number(b"created_ms"),
            enqueued_ms=number(b"enqueued_ms"),
            tries=number(b"tries"),
            due_ms=number(b"due_ms"),
            tried_ms=number(b"tried_ms"),
            ended_ms=number(b"ended_ms"),
            last_status=number(b"last_status") if fields.get(b"last_status") else None,
            last_error=text(b"last_error") if fields.get(b"last_error") else None,
            secret=text(b"secret") if b"secret" in fields else None,
            body=fields.get(b"body"),
        )
