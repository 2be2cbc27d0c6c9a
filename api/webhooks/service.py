"""The webhooks of API keys, for the routes: endpoints, their secrets, tests, and deliveries."""

import time
from collections.abc import Collection, Mapping
from secrets import token_hex
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api.webhooks.addresses import AddressRules, check_url
from api.webhooks.endpoints import Endpoint, Endpoints, new_endpoint
from api.webhooks.event_bodies import event_body
from api.webhooks.messages import message_headers
from api.webhooks.sender import SendOutcome, WebhookSender
from api.webhooks.targets import Url, invalid_webhook
from shared.errors import WebhookNotFound
from shared.ledger.delivery_ledger import DeliveryLedger
from shared.ledger.delivery_record import DEFAULT_ENDPOINT, DeliveryRecord, DeliveryStatus
from shared.ledger.job_record import Position
from shared.webhooks import WebhookEvent

TEST_EVENT = "webhook.test"


class EndpointCreation(BaseModel):
    """The body of `POST /v1/webhooks`."""

    model_config = ConfigDict(extra="ignore")

    url: Url
    events: list[WebhookEvent] | None = None
    description: str | None = Field(None, max_length=512)


class WebhookService:
    """The webhooks of all keys. Every method raises StoreUnavailable when Redis is unreachable.

    What belongs to another key raises WebhookNotFound, like what does not exist.
    """

    def __init__(
        self, endpoints: Endpoints, deliveries: DeliveryLedger, sender: WebhookSender, rules: AddressRules
    ) -> None:
        self._endpoints = endpoints
        self._deliveries = deliveries
        self._sender = sender
        self._rules = rules

    async def create(self, body: dict[str, Any], owner: str) -> Endpoint:
        """Create an endpoint. Raises InvalidRequest, which names the field, also when the owner has too many."""
        try:
            read = EndpointCreation.model_validate(body)
        except ValidationError as error:
            raise invalid_webhook(error) from error
        check_url(read.url, self._rules, "url")
        endpoint = new_endpoint(read.url, tuple(dict.fromkeys(read.events or ())), read.description)
        await self._endpoints.create(owner, endpoint)
        return endpoint

    async def endpoints(self, owner: str) -> list[Endpoint]:
        """An owner's endpoints, oldest first, without the default one."""
        endpoints = await self._endpoints.of_now(owner)
        found = [endpoint for endpoint in endpoints.values() if endpoint.id != DEFAULT_ENDPOINT]
        return sorted(found, key=lambda endpoint: (endpoint.created, endpoint.id))

    async def read(self, endpoint_id: str, owner: str) -> Endpoint:
        """An endpoint with a URL."""
        endpoint = await self._endpoints.read(owner, endpoint_id)
        if endpoint is None or endpoint_id == DEFAULT_ENDPOINT:
            raise _not_found("webhook", endpoint_id)
        return endpoint

    async def test(self, endpoint_id: str, owner: str) -> tuple[str, SendOutcome]:
        """Send an event to an endpoint now, once. Returns its id and the outcome; it is not listed."""
        endpoint, message_id, now = await self.read(endpoint_id, owner), f"msg_test_{token_hex(12)}", time.time()
        body = event_body(TEST_EVENT, int(now * 1000), {"id": endpoint.id, "object": "webhook"})
        headers = message_headers(endpoint.secrets(now), message_id, int(now), body)
        return message_id, await self._sender.post(endpoint.url, headers, body)

    async def default_secret(self, owner: str) -> str:
        """The secret that signs deliveries to URLs given with single requests; created on first use."""
        endpoint = await self._endpoints.read(owner, DEFAULT_ENDPOINT) or await self._endpoints.default(owner)
        return endpoint.secret

    async def rotate(self, endpoint_id: str, owner: str) -> Endpoint:
        """Replace an endpoint's secret, or the default one. The old one signs, too, for a day."""
        if endpoint_id == DEFAULT_ENDPOINT:
            await self._endpoints.default(owner)
        endpoint = await self._endpoints.rotate(owner, endpoint_id)
        if endpoint is None:
            raise _not_found("webhook", endpoint_id)
        return endpoint

    async def delete(self, endpoint_id: str, owner: str) -> None:
        """Delete an endpoint. What was not delivered to it yet fails."""
        if endpoint_id == DEFAULT_ENDPOINT or not await self._endpoints.delete(owner, endpoint_id):
            raise _not_found("webhook", endpoint_id)

    async def deliveries(
        self, endpoint_id: str, owner: str, limit: int, after: Position | None, statuses: Collection[DeliveryStatus]
    ) -> tuple[list[DeliveryRecord], Position | None]:
        """A page of deliveries, newest first, and the position to go on from."""
        if endpoint_id != DEFAULT_ENDPOINT:
            await self.read(endpoint_id, owner)
        found, more = await self._deliveries.page(owner, endpoint_id, limit, after, statuses)
        return found, Position(found[-1].created_ms, found[-1].id) if more and found else None

    async def counts(self) -> Mapping[str, int]:
        """How many deliveries of all keys were delivered, retried and failed so far."""
        return await self._deliveries.counts()

    async def redeliver(self, endpoint_id: str, delivery_id: str, owner: str) -> DeliveryRecord:
        """Make a delivery due now, whatever its status. Returns it as it is then."""
        for again in (True, False):
            record = await self._deliveries.read(delivery_id)
            if record is None or (record.owner, record.endpoint) != (owner, endpoint_id):
                break
            if not again:
                return record
            await self._deliveries.redeliver(delivery_id)
        raise _not_found("delivery", delivery_id)


def _not_found(kind: str, item: str) -> WebhookNotFound:
    return WebhookNotFound(f"there is no {kind} {item[:100]!r}", param="id")
