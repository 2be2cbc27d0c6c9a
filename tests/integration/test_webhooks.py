"""Webhooks of the whole stack: the ends of jobs and batches arrive, also when every process is killed meanwhile."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from infra.local.stack import Stack
from tests.receivers import Received, Receiver, Reply
from tests.stacks import PANDA, client_of, running
from tests.worker.support import wait_until


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running(environment={"RERANKQ_WEBHOOK_NETWORKS": "127.0.0.0/8"}) as started:
        yield started


def end_one_of_each(client: httpx.Client, url: str) -> dict[str, str]:
    """Run a waiting call, a job, a job of many requests and a batch with this webhook. Returns events by subject."""
    with_webhook = PANDA | {"webhook": url}
    called = client.post("/v1/rerank", json=with_webhook)
    assert called.status_code == 200, called.text
    job = client.post("/v1/rerank", json=with_webhook, headers={"Prefer": "respond-async"}).json()
    bulk = client.post("/v1/jobs", json={"requests": [PANDA] * 3, "webhook": url}).json()
    line = json.dumps({"custom_id": "one", "method": "POST", "url": "/v1/rerank", "body": PANDA})
    file = client.post("/v1/files", files={"file": ("in.jsonl", line)}, data={"purpose": "batch"}).json()
    body = {"input_file_id": file["id"], "endpoint": "/v1/rerank", "webhook": {"url": url, "events": ["batch.ended"]}}
    batch = client.post("/v1/batches", json=body).json()
    return {
        called.json()["id"]: "job.succeeded",
        job["id"]: "job.succeeded",
        bulk["id"]: "batch.ended",
        batch["id"]: "batch.ended",
    }


def restart_everything(stack: Stack) -> None:
    names = ("api", "worker-1", "redis")
    for name in names:
        stack.child(name).kill()
    assert all(stack.child(name).exit_status is not None for name in names)
    wait_until(
        lambda: not stack.restart_ended() and all(stack.child(name).exit_status is None for name in names), seconds=20
    )
    stack.wait_ready(60)


def events_of(received: list[Received]) -> dict[str, str]:
    return {request.event["data"]["id"]: request.event["type"] for request in received}


def test_events_arrive_although_every_process_was_killed_between_the_tries(stack: Stack) -> None:
    accepts = threading.Event()
    with (
        client_of(stack) as client,
        Receiver(lambda _: Reply(204 if accepts.is_set() else 500)) as one,
        Receiver(lambda request: Reply(204 if accepts.is_set() or request.count > 1 else 500)) as every,
    ):
        endpoint = client.post("/v1/webhooks", json={"url": every.url}).json()
        secrets = {one: client.get("/v1/webhooks/default/secret").json()["key"], every: endpoint["secret"]}
        expected = end_one_of_each(client, one.url)
        # Every event has been tried, and the append-only file, which is written once a second, has it.
        wait_until(lambda: one.subjects() == every.subjects() == set(expected), seconds=20)
        time.sleep(1.2)
        accepted_before = len(one.received)
        restart_everything(stack)
        accepts.set()

        def deliveries(webhook: str) -> list[dict[str, Any]]:
            page: list[dict[str, Any]] = client.get(f"/v1/webhooks/{webhook}/deliveries?status=delivered").json()[
                "data"
            ]
            return page

        wait_until(lambda: len(deliveries("default") + deliveries(endpoint["id"])) == 2 * len(expected), seconds=40)
        assert len(one.received) > accepted_before
        for receiver, secret in secrets.items():
            assert events_of(receiver.received) == expected
            assert len({(request.id, request.body) for request in receiver.received}) == len(expected)
            for request in receiver.received:
                assert Webhook(secret).verify(request.body, request.headers) == request.event


def test_runpods_webhook_is_the_job_as_its_status_shows_it(stack: Stack) -> None:
    with client_of(stack) as client, Receiver(lambda _: Reply(200)) as receiver:
        model = client.get("/v1/models").json()["data"][0]["id"]
        base = f"/runpod/v2/{model}"
        calls: list[dict[str, Any]] = [
            {"input": PANDA},
            {"input": [PANDA, PANDA]},
            {"input": PANDA, "policy": {"lowPriority": True}},
        ]
        ids = [client.post(f"{base}/run", json=call | {"webhook": receiver.url}).json()["id"] for call in calls]
        wait_until(lambda: len(receiver.received) == len(ids), seconds=20)
        shown = [client.get(f"{base}/status/{job_id}").json() for job_id in ids]
        assert {job["status"] for job in shown} == {"COMPLETED"}
        delivered = {request.event["id"]: request.event for request in receiver.received}
        assert delivered == {job["id"]: job for job in shown}


def test_a_receiver_that_is_gone_is_a_dead_letter_of_a_disabled_webhook(stack: Stack) -> None:
    with client_of(stack) as client, Receiver(lambda _: Reply(410)) as receiver:
        webhook = client.post("/v1/webhooks", json={"url": receiver.url, "events": ["job.succeeded"]}).json()
        path = f"/v1/webhooks/{webhook['id']}"
        assert client.post("/v1/rerank", json=PANDA).status_code == 200
        wait_until(lambda: client.get(path).json()["status"] == "disabled")
        wait_until(lambda: bool(client.get(f"{path}/deliveries?status=failed").json()["data"]))
        [dead] = client.get(f"{path}/deliveries?status=failed").json()["data"]
        assert (dead["tries"], dead["response_status"]) == (1, 410)
        assert client.delete(path).status_code == 204
