"""Which webhooks a new job or batch has: those of its request, and the endpoints of its key."""

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from api.webhooks.addresses import AddressRules, check_url
from api.webhooks.endpoints import Endpoints
from shared.ledger.delivery_record import DEFAULT_ENDPOINT
from shared.webhooks import WebhookEvent, WebhookForm, WebhookTarget

JOB_EVENTS = (
    WebhookEvent.JOB_SUCCEEDED,
    WebhookEvent.JOB_FAILED,
    WebhookEvent.JOB_CANCELED,
    WebhookEvent.JOB_EXPIRED,
)
BATCH_EVENTS = (WebhookEvent.BATCH_ENDED,)


class Subscriptions:
    """Finds the webhooks of jobs and batches. `rules`: which addresses may be called."""

    def __init__(self, endpoints: Endpoints, rules: AddressRules) -> None:
        self._endpoints = endpoints
        self._rules = rules

    async def of_job(self, owner: str, target: WebhookTarget | None) -> str:
        """What a job's end delivers, as JSON for the ledger; empty when it delivers nothing.

        Raises InvalidRequest for a URL that can never be called.
        """
        return await self._encode(owner, target, JOB_EVENTS)

    async def of_batch(self, owner: str, target: WebhookTarget | None) -> str:
        """What a batch's end delivers; see `of_job`."""
        return await self._encode(owner, target, BATCH_EVENTS)

    async def _encode(self, owner: str, target: WebhookTarget | None, events: Sequence[WebhookEvent]) -> str:
        receivers: list[dict[str, Any]] = []
        if target is not None:
            check_url(target.url, self._rules)
            # The default secret signs this delivery, whether or not the caller has read it before.
            if target.secret is None:
                await self._endpoints.default(owner)
            wanted = [event for event in events if not target.events or event in target.events]
            receivers.append(_receiver(DEFAULT_ENDPOINT, target.url, wanted, target.secret, target.form))
        for endpoint in (await self._endpoints.of(owner)).values():
            wanted = [event for event in events if endpoint.wants(event)]
            if endpoint.id != DEFAULT_ENDPOINT:
                receivers.append(_receiver(endpoint.id, endpoint.url, wanted))
        receivers = [receiver for receiver in receivers if receiver["events"]]
        return json.dumps(receivers) if receivers else ""


def lane_of(url: str) -> str:
    """The lane of a receiver: its host and port."""
    return urlsplit(url).netloc.rpartition("@")[2].lower()[:260]


def _receiver(
    endpoint_id: str,
    url: str,
    events: Sequence[WebhookEvent],
    secret: str | None = None,
    form: WebhookForm = WebhookForm.STANDARD,
) -> dict[str, Any]:
    receiver = {"endpoint": endpoint_id, "url": url, "lane": lane_of(url), "form": form, "events": list(events)}
    return receiver if secret is None else receiver | {"secret": secret}
