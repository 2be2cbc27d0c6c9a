"""Webhooks over HTTP: endpoints of a key, the `webhook` field of requests, tests, deliveries and sending again."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.batches.support import Bench
from tests.api.routes.conftest import Api, error_of
from tests.api.webhooks.conftest import eventually
from tests.receivers import Receiver, Reply

QUERY = {"query": "q", "documents": ["a", "b"]}
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as opened:
        yield opened


async def create(api: Api, url: str, **fields: Any) -> dict[str, Any]:
    response = await api.mine.post("/v1/webhooks", json={"url": url} | fields)
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    return created


async def cancel_job(api: Api, **fields: Any) -> str:
    """Submit a job, and cancel it. Returns its id."""
    response = await api.mine.post("/v1/rerank", json=QUERY | fields, headers=ASYNC)
    assert response.status_code == 202, response.text
    job_id = str(response.json()["id"])
    assert (await api.mine.post(f"/v1/jobs/{job_id}/cancel")).status_code == 200
    return job_id


async def listed(api: Api, webhook: str, query: str = "") -> list[dict[str, Any]]:
    response = await api.mine.get(f"/v1/webhooks/{webhook}/deliveries{query}")
    assert response.status_code == 200, response.text
    page: list[dict[str, Any]] = response.json()["data"]
    return page


class TestEndpoints:
    async def test_the_secret_is_shown_once(self, api: Api, receiver: Receiver) -> None:
        created = await create(api, receiver.url, events=["job.failed"], description="mine")
        assert created.pop("secret").startswith("whsec_")
        assert created["events"] == ["job.failed"]
        assert (await api.mine.get(f"/v1/webhooks/{created['id']}")).json() == created
        assert (await api.mine.get("/v1/webhooks")).json() == {"object": "list", "data": [created]}

    async def test_another_keys_endpoint_does_not_exist(self, api: Api, receiver: Receiver) -> None:
        path = f"/v1/webhooks/{(await create(api, receiver.url))['id']}"
        for method, more in (
            *(("GET", ""), ("DELETE", ""), ("POST", "/test"), ("POST", "/rotate"), ("GET", "/deliveries")),
            ("POST", "/deliveries/msg_1/redeliver"),
        ):
            assert error_of(await api.other.request(method, path + more)) == (404, "id"), more
        assert (await api.other.get("/v1/webhooks")).json()["data"] == []
        assert (await api.mine.get(path)).status_code == 200

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({}, "url"),
            ({"url": 1}, "url"),
            ({"url": "ftp://127.0.0.1/"}, "url"),
            ({"url": "http://8.8.8.8/"}, "url"),
            ({"url": "https://10.0.0.1/"}, "url"),
            ({"url": "https://example.com/", "events": ["job.started"]}, "events"),
            ({"url": "https://example.com/", "events": "job.failed"}, "events"),
            ({"url": "https://example.com/", "description": "x" * 513}, "description"),
        ],
    )
    async def test_a_field_that_is_wrong_is_named(self, api: Api, body: dict[str, Any], param: str) -> None:
        assert error_of(await api.mine.post("/v1/webhooks", json=body)) == (400, param)

    async def test_a_key_has_at_most_ten(self, api: Api, receiver: Receiver) -> None:
        assert (await api.mine.get("/v1/webhooks/default/secret")).status_code == 200
        first = await create(api, receiver.url)
        for _ in range(9):
            await create(api, receiver.url)
        assert error_of(await api.mine.post("/v1/webhooks", json={"url": receiver.url})) == (400, None)
        assert (await api.other.post("/v1/webhooks", json={"url": receiver.url})).status_code == 201
        assert (await api.mine.delete(f"/v1/webhooks/{first['id']}")).status_code == 204
        await create(api, receiver.url)

    async def test_a_deleted_one_is_gone(self, api: Api, receiver: Receiver) -> None:
        path = f"/v1/webhooks/{(await create(api, receiver.url))['id']}"
        assert (await api.mine.delete(path)).status_code == 204
        assert error_of(await api.mine.delete(path)) == (404, "id")
        await cancel_job(api)
        assert receiver.received == []

    async def test_a_rotation_shows_the_new_secret(self, api: Api, receiver: Receiver) -> None:
        created = await create(api, receiver.url)
        rotated = (await api.mine.post(f"/v1/webhooks/{created['id']}/rotate")).json()
        assert rotated.pop("secret") != created.pop("secret")
        assert rotated == created

    async def test_a_test_tells_the_outcome(self, api: Api) -> None:
        with Receiver(lambda _: Reply(418)) as receiver:
            created = await create(api, receiver.url)
            outcome = (await api.mine.post(f"/v1/webhooks/{created['id']}/test")).json()
            assert (outcome["delivered"], outcome["response_status"]) == (False, 418)
            assert receiver.received[0].id == outcome["id"]
            assert receiver.received[0].event["type"] == "webhook.test"

    async def test_the_default_secret_is_created_once_and_can_be_replaced(self, api: Api) -> None:
        first = (await api.mine.get("/v1/webhooks/default/secret")).json()
        assert (await api.mine.get("/v1/webhooks/default/secret")).json() == first
        assert (await api.other.get("/v1/webhooks/default/secret")).json() != first
        second = (await api.mine.post("/v1/webhooks/default/rotate")).json()
        assert second != first
        assert (await api.mine.get("/v1/webhooks/default/secret")).json() == second
        assert (await api.mine.get("/v1/webhooks")).json()["data"] == []
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/test")):
            assert error_of(await api.mine.request(method, f"/v1/webhooks/default{path}")) == (404, "id")


class TestFieldOfRequests:
    @pytest.mark.parametrize("path", ["/v1/rerank", "/superset/v1/rerank"])
    async def test_a_jobs_end_is_reported_to_its_url_and_to_the_keys_endpoints(
        self, api: Api, receiver: Receiver, path: str
    ) -> None:
        with Receiver() as endpoint:
            await create(api, endpoint.url, events=["job.canceled"])
            response = await api.mine.post(path, json=QUERY | {"webhook": receiver.url}, headers=ASYNC)
            job_id = response.json()["id"]
            await api.mine.post(f"/v1/jobs/{job_id}/cancel")
            await eventually(lambda: receiver.received and endpoint.received)
            assert receiver.subjects() == endpoint.subjects() == {job_id}
            assert receiver.received[0].event["data"] == (await api.mine.get(f"/v1/jobs/{job_id}")).json()

    async def test_a_waiting_call_is_reported_too(self, api: Api, receiver: Receiver) -> None:
        body = QUERY | {"webhook": {"url": receiver.url, "secret": SECRET}}
        response = await api.mine.post("/v1/rerank", json=body, headers={"Prefer": "respond-async, wait=1"})
        await api.mine.post(f"/v1/jobs/{response.json()['id']}/cancel")
        await eventually(lambda: receiver.received)

    async def test_events_that_are_not_wanted_are_not_sent(self, api: Api, receiver: Receiver) -> None:
        await cancel_job(api, webhook={"url": receiver.url, "events": ["job.succeeded"]})
        job_id = await cancel_job(api, webhook={"url": receiver.url, "events": ["job.succeeded", "job.canceled"]})
        await eventually(lambda: receiver.received)
        assert receiver.subjects() == {job_id}

    async def test_the_secret_is_nowhere_in_what_callers_and_workers_read(
        self, api: Api, receiver: Receiver, redis_client: Any
    ) -> None:
        job_id = await cancel_job(api, webhook={"url": receiver.url, "secret": SECRET})
        assert SECRET not in (await api.mine.get(f"/v1/jobs/{job_id}")).text
        assert SECRET.encode() not in redis_client.get(f"rerankq:job:{job_id}:request")
        await eventually(lambda: receiver.received)
        assert SECRET not in (await api.mine.get("/v1/webhooks/default/deliveries")).text

    async def test_a_repeated_request_with_another_webhook_is_the_same_job(self, api: Api, receiver: Receiver) -> None:
        headers = ASYNC | {"Idempotency-Key": "mine"}
        bodies = [QUERY | {"webhook": url} for url in (receiver.url, f"{receiver.url}/2")]
        ids = {(await api.mine.post("/v1/rerank", json=body, headers=headers)).json()["id"] for body in bodies}
        assert len(ids) == 1

    @pytest.mark.parametrize("path", ["/v1/jobs", "/v1/batches"])
    async def test_the_end_of_a_batch_is_reported(self, api: Api, bench: Bench, receiver: Receiver, path: str) -> None:
        webhook = {"url": receiver.url, "events": ["batch.ended"]}
        batch = await api.create_job(webhook=webhook) if path == "/v1/jobs" else await api.create_batch(webhook=webhook)
        item = batch if isinstance(batch, str) else batch["id"]
        await bench.run(batch_id=item)
        await eventually(lambda: receiver.received)
        event = receiver.received[0].event
        assert event["type"] == "batch.ended"
        assert event["data"] == (await api.mine.get(f"{path}/{item}")).json()

    @pytest.mark.parametrize(
        ("webhook", "param"),
        [
            (1, "webhook"),
            ({}, "webhook.url"),
            ("", "webhook.url"),
            ("https://10.0.0.1/", "webhook.url"),
            ({"url": "https://example.com", "events": ["webhook.test"]}, "webhook.events"),
            ({"url": "https://example.com", "secret": "abc"}, "webhook.secret"),
        ],
    )
    @pytest.mark.parametrize("path", ["/v1/rerank", "/v1/jobs"])
    async def test_a_field_that_is_wrong_is_named(self, api: Api, path: str, webhook: Any, param: str) -> None:
        body = QUERY if path == "/v1/rerank" else {"requests": [QUERY]}
        assert error_of(await api.mine.post(path, json=body | {"webhook": webhook}, headers=ASYNC)) == (400, param)

    async def test_null_is_no_webhook(self, api: Api) -> None:
        await cancel_job(api, webhook=None)
        assert await listed(api, "default") == []


class TestDeliveries:
    async def test_they_are_listed_with_their_last_outcome(self, api: Api) -> None:
        with Receiver(lambda _: Reply(500)) as receiver:
            job_id = await cancel_job(api, webhook=receiver.url)
            await eventually(lambda: receiver.received)

            async def recorded() -> bool:
                return bool((await listed(api, "default"))[0]["response_status"] == 500)

            await eventually(recorded)
            [delivery] = await listed(api, "default", "?status=pending")
        assert (delivery["job"], delivery["type"], delivery["tries"]) == (job_id, "job.canceled", 1)
        assert 3 < delivery["next_try"] - delivery["last_try"] < 7
        assert await listed(api, "default", "?status=delivered,failed") == []

    async def test_pages_continue(self, api: Api, receiver: Receiver) -> None:
        jobs = [await cancel_job(api, webhook=receiver.url) for _ in range(3)]
        first = (await api.mine.get("/v1/webhooks/default/deliveries?limit=2")).json()
        rest = (await api.mine.get(f"/v1/webhooks/default/deliveries?limit=2&after={first['next']}")).json()
        assert (first["has_more"], rest["has_more"], rest["next"]) == (True, False, None)
        assert {delivery["job"] for delivery in first["data"] + rest["data"]} == set(jobs)

    @pytest.mark.parametrize(
        ("query", "param"), [("status=sent", "status"), ("limit=0", "limit"), ("after=x", "after")]
    )
    async def test_a_parameter_that_is_wrong_is_named(self, api: Api, query: str, param: str) -> None:
        assert error_of(await api.mine.get(f"/v1/webhooks/default/deliveries?{query}")) == (400, param)

    async def test_one_can_be_sent_again_with_the_same_id(self, api: Api, receiver: Receiver) -> None:
        await cancel_job(api, webhook=receiver.url)
        await eventually(lambda: receiver.received)
        [delivery] = await listed(api, "default")
        path = f"/v1/webhooks/default/deliveries/{delivery['id']}/redeliver"
        assert error_of(await api.other.post(path)) == (404, "id")
        assert (await api.mine.post(path)).status_code == 202
        await eventually(lambda: len(receiver.received) == 2)
        assert len({(request.id, request.body) for request in receiver.received}) == 1
