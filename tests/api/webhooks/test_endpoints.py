"""Endpoints of keys: no change is lost, and their secrets overlap after a rotation."""

import asyncio
from collections import Counter

import pytest
import redis.asyncio

from api.webhooks.endpoints import OLD_SECRET_SECONDS, Endpoint, Endpoints, new_endpoint
from api.webhooks.sender import WebhookSender
from api.webhooks.service import WebhookService
from shared.keys import webhook_keys
from shared.ledger.delivery_ledger import DeliveryLedger
from shared.ledger.delivery_record import DEFAULT_ENDPOINT
from shared.ledger.endpoint_ledger import EndpointLedger
from shared.webhooks import WebhookEvent
from tests.api.webhooks.conftest import LOOPBACK
from tests.shared.support import OWNER

FAILED = WebhookEvent.JOB_FAILED
CACHE_SECONDS = 0.2


@pytest.fixture
def endpoints(async_client: redis.asyncio.Redis) -> Endpoints:
    return Endpoints(EndpointLedger(async_client), CACHE_SECONDS)


@pytest.fixture
async def endpoint(endpoints: Endpoints) -> Endpoint:
    created = new_endpoint("https://example.com/hook", (FAILED,))
    assert await endpoints.create(OWNER, created)
    return created


async def test_changes_at_the_same_time_are_all_made(
    async_client: redis.asyncio.Redis, endpoints: Endpoints, endpoint: Endpoint
) -> None:
    processes = [Endpoints(EndpointLedger(async_client)) for _ in range(4)]
    await asyncio.gather(
        *(process.rotate(OWNER, endpoint.id) for process in processes[:3]),
        processes[3].disable(OWNER, endpoint.id, "it returned 410"),
    )
    changed = await endpoints.read(OWNER, endpoint.id)
    assert changed is not None
    assert changed.disabled == "it returned 410"
    assert len({changed.secret, changed.old_secret, endpoint.secret}) == 3


async def test_processes_that_need_the_default_secret_at_once_get_the_same(async_client: redis.asyncio.Redis) -> None:
    found = await asyncio.gather(*(Endpoints(EndpointLedger(async_client)).default(OWNER) for _ in range(5)))
    assert Counter(endpoint.secret for endpoint in found).most_common() == [(found[0].secret, 5)]
    assert found[0].id == DEFAULT_ENDPOINT


async def test_the_old_secret_signs_for_a_day(endpoints: Endpoints, endpoint: Endpoint) -> None:
    rotated = await endpoints.rotate(OWNER, endpoint.id)
    assert rotated is not None
    changed_at = rotated.old_secret_until - OLD_SECRET_SECONDS
    assert rotated.secrets(changed_at + OLD_SECRET_SECONDS - 1) == [rotated.secret, endpoint.secret]
    assert rotated.secrets(changed_at + OLD_SECRET_SECONDS) == [rotated.secret]


async def test_another_process_knows_of_an_endpoint_after_the_caches_lifetime(
    async_client: redis.asyncio.Redis, endpoints: Endpoints
) -> None:
    other = Endpoints(EndpointLedger(async_client), CACHE_SECONDS)
    assert await other.of(OWNER) == {}
    created = new_endpoint("https://example.com/hook")
    await endpoints.create(OWNER, created)
    assert await endpoints.of(OWNER) == {created.id: created}
    assert await other.of(OWNER) == {}
    await asyncio.sleep(CACHE_SECONDS)
    assert await other.of(OWNER) == {created.id: created}


async def test_a_caller_reads_what_another_process_has_changed(async_client: redis.asyncio.Redis) -> None:
    deliveries, sender = DeliveryLedger(async_client), WebhookSender(LOOPBACK)
    one, other = (
        WebhookService(Endpoints(EndpointLedger(async_client)), deliveries, sender, LOOPBACK) for _ in range(2)
    )
    assert await one.endpoints(OWNER) == []
    assert await one.default_secret(OWNER) == await other.default_secret(OWNER)
    created = await other.create({"url": "https://example.com/hook"}, OWNER)
    assert await one.endpoints(OWNER) == [created]
    rotated = await other.rotate(DEFAULT_ENDPOINT, OWNER)
    assert await one.default_secret(OWNER) == rotated.secret
    await sender.aclose()


async def test_a_damaged_record_is_disabled_and_can_be_deleted(
    async_client: redis.asyncio.Redis, endpoints: Endpoints, endpoint: Endpoint
) -> None:
    field = webhook_keys.endpoint_field(OWNER, endpoint.id)
    await async_client.hset(webhook_keys.ENDPOINTS, field, "{")
    damaged = await endpoints.read(OWNER, endpoint.id)
    assert damaged is not None
    assert not damaged.wants(FAILED)
    assert await endpoints.delete(OWNER, endpoint.id)
    assert await endpoints.read(OWNER, endpoint.id) is None


async def test_a_foreign_value_instead_of_all_endpoints_does_not_keep_jobs_from_being_submitted(
    async_client: redis.asyncio.Redis, endpoints: Endpoints, endpoint: Endpoint
) -> None:
    await async_client.set(webhook_keys.ENDPOINTS, "foreign")
    await asyncio.sleep(CACHE_SECONDS)
    assert await endpoints.of(OWNER) == {endpoint.id: endpoint}
    assert await Endpoints(EndpointLedger(async_client)).of(OWNER) == {}


def test_an_endpoint_wants_the_events_that_it_names_or_all() -> None:
    assert new_endpoint("https://example.com/hook").wants(FAILED)
    assert new_endpoint("https://example.com/hook", (FAILED,)).wants(FAILED)
    assert not new_endpoint("https://example.com/hook", (WebhookEvent.BATCH_ENDED,)).wants(FAILED)
