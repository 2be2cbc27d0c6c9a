"""The runner delivers each event at least once, to receivers that fail, hang or redirect, and survives its own end."""

import asyncio
import os
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from api.background_tasks import cancel_and_wait
from api.webhooks.endpoints import new_endpoint
from api.webhooks.retries import RUNPOD_RETRIES, RetryPolicy
from api.webhooks.sender import SenderLimits, WebhookSender
from infra.local.redis_server import free_port, start_redis
from shared.ledger.delivery_record import DeliveryStatus
from shared.ledger.job_ledger import JobLedger
from shared.ledger.worker_ledger import WorkerLedger
from shared.processes import stop_all
from shared.store.client import connect_async
from shared.webhooks import WebhookForm, WebhookTarget
from tests.api.webhooks.conftest import LOOPBACK, Outbox, eventually
from tests.api.webhooks.outcomes import delivered, eventually_failed
from tests.receivers import Receiver, Reply
from tests.shared.support import MODEL, OWNER


async def test_nine_failures_then_a_success_is_one_event_with_one_body(outbox: Outbox) -> None:
    outbox.start()
    with Receiver(lambda request: Reply(500 if request.count < 10 else 200)) as receiver:
        await outbox.end_job(WebhookTarget(receiver.url))
        await delivered(outbox)
        assert len(receiver.received) == 10
        assert len(set(receiver.ids())) == 1
        assert len({request.body for request in receiver.received}) == 1
    assert (await outbox.only_delivery()).tries == 10


async def test_runpods_form_is_tried_three_times(outbox: Outbox) -> None:
    outbox.start(retries={WebhookForm.RUNPOD: replace(RUNPOD_RETRIES, first=0.05, longest=0.05)})
    with Receiver(lambda _: Reply(500)) as receiver:
        await outbox.end_job(WebhookTarget(receiver.url, form=WebhookForm.RUNPOD))
        await eventually_failed(outbox)
        assert len(receiver.received) == 3


async def test_a_redirect_is_a_failure_and_is_not_followed(outbox: Outbox) -> None:
    with Receiver() as inside:
        location = (("location", inside.url),)
        with Receiver(lambda request: Reply(307, location) if request.count < 3 else Reply()) as receiver:
            outbox.start()
            await outbox.end_job(WebhookTarget(receiver.url))
            await delivered(outbox)
            assert (len(receiver.received), inside.received) == (3, [])


async def test_retry_after_is_respected(outbox: Outbox) -> None:
    outbox.start()
    later = Reply(503, (("retry-after", "1"),))
    with Receiver(lambda request: later if request.count == 1 else Reply()) as receiver:
        await outbox.end_job(WebhookTarget(receiver.url))
        await delivered(outbox)
        first, second = receiver.received
    assert 0.9 < second.at - first.at < 3.0


async def test_after_the_last_try_it_is_a_dead_letter_that_can_be_sent_again(outbox: Outbox) -> None:
    outbox.start(retries={WebhookForm.STANDARD: RetryPolicy(first=0.02, max_tries=3)})
    with Receiver(lambda request: Reply(500 if request.count < 4 else 200)) as receiver:
        await outbox.end_job(WebhookTarget(receiver.url))
        await eventually_failed(outbox)
        record = await outbox.only_delivery()
        assert (record.status, record.tries, record.last_status) == (DeliveryStatus.FAILED, 3, 500)
        await outbox.deliveries.redeliver(record.id)
        await delivered(outbox)
        assert len({(request.id, request.body) for request in receiver.received}) == 1


async def test_410_disables_the_endpoint(outbox: Outbox) -> None:
    outbox.start()
    with Receiver(lambda _: Reply(410)) as receiver:
        endpoint = new_endpoint(receiver.url)
        await outbox.endpoints.create(OWNER, endpoint)
        await outbox.end_job()

        async def disabled() -> bool:
            return not (await outbox.endpoints.of(OWNER))[endpoint.id].wants(endpoint_event)

        endpoint_event: Any = "job.succeeded"
        await eventually(disabled)
        await outbox.end_job(job_id="job-2")
        assert len(receiver.received) == 1
    assert (await outbox.only_delivery(endpoint.id)).status is DeliveryStatus.FAILED


async def test_a_deleted_endpoint_gets_nothing_more(outbox: Outbox) -> None:
    with Receiver() as receiver:
        endpoint = new_endpoint(receiver.url)
        await outbox.endpoints.create(OWNER, endpoint)
        await outbox.end_job()
        await outbox.endpoints.delete(OWNER, endpoint.id)
        outbox.start()

        async def failed() -> bool:
            return (await outbox.only_delivery(endpoint.id)).status is DeliveryStatus.FAILED

        await eventually(failed)
        assert receiver.received == []


async def test_a_hanging_receiver_delays_no_other_and_gets_few_at_once(outbox: Outbox) -> None:
    with Receiver(lambda _: Reply(delay=30.0)) as hanging, Receiver() as quick:
        for number in range(8):
            await outbox.end_job(WebhookTarget(hanging.url), f"job-hanging-{number}")
        outbox.start(lease=20.0)
        await eventually(lambda: len(hanging.received) == 4)
        for number in range(40):
            await outbox.end_job(WebhookTarget(quick.url), f"job-quick-{number}")
        await delivered(outbox, 40)
        assert len(hanging.received) == 4
        assert quick.most_at_once <= 4


async def test_a_receiver_that_hangs_is_given_up_and_tried_again(outbox: Outbox) -> None:
    outbox.sender = WebhookSender(LOOPBACK, SenderLimits(seconds=0.3))
    outbox.start()
    with Receiver(lambda request: Reply(delay=30.0 if request.count == 1 else 0.0)) as receiver:
        await outbox.end_job(WebhookTarget(receiver.url))
        await delivered(outbox)
        assert len(receiver.received) == 2
        assert len({(request.id, request.body) for request in receiver.received}) == 1


async def test_an_unreachable_receiver_is_tried_until_it_comes_back(outbox: Outbox) -> None:
    outbox.start()
    port = free_port()
    await outbox.end_job(WebhookTarget(f"http://127.0.0.1:{port}/hook"))

    async def tried() -> bool:
        return (await outbox.only_delivery()).tries > 2

    await eventually(tried)
    assert (await outbox.only_delivery()).last_error
    with Receiver(port=port):
        await delivered(outbox)


async def test_another_process_sends_what_a_dead_one_was_sending(outbox: Outbox) -> None:
    first = outbox.start(lease=0.5)
    with Receiver(lambda request: Reply(delay=10.0 if request.count == 1 else 0.0)) as receiver:
        await outbox.end_job(WebhookTarget(receiver.url))
        await eventually(lambda: receiver.received)
        await cancel_and_wait([first])
        outbox.start()
        await delivered(outbox)
        assert Counter(receiver.ids()) == {receiver.received[0].id: 2}


async def test_of_several_processes_one_sends(outbox: Outbox) -> None:
    for _ in range(3):
        outbox.start()
    with Receiver() as receiver:
        for number in range(20):
            await outbox.end_job(WebhookTarget(receiver.url), f"job-{number}")
        await delivered(outbox, 20)
        assert len(receiver.received) == len(set(receiver.ids())) == 20


@pytest.mark.parametrize("api_survives", [True, False])
async def test_nothing_is_lost_when_redis_and_the_api_restart(api_survives: bool, tmp_path: Path) -> None:
    child, url = start_redis(tmp_path, os.environ)
    accepts = threading.Event()
    try:
        async with connect_async(url) as client:
            with (
                redis.Redis.from_url(url) as blocking,
                Receiver(lambda _: Reply(204 if accepts.is_set() else 500)) as receiver,
            ):
                outbox = Outbox(client, JobLedger(client), WorkerLedger(blocking, MODEL))
                first = outbox.start()
                for number in range(5):
                    await outbox.end_job(WebhookTarget(receiver.url), f"job-{number}")
                await eventually(lambda: len(set(receiver.ids())) == 5)
                # The append-only file is written once a second.
                await asyncio.sleep(1.2)
                if not api_survives:
                    await cancel_and_wait([first])
                stop_all([child], grace_seconds=5)
                await asyncio.sleep(0.2)
                child, _ = start_redis(tmp_path, os.environ, port=int(url.rpartition(":")[2].partition("/")[0]))
                if not api_survives:
                    outbox.start()
                accepts.set()
                await delivered(outbox, 5)
                assert len({(request.id, request.body) for request in receiver.received}) == 5
                await cancel_and_wait(outbox.runners)
                await outbox.sender.aclose()
    finally:
        stop_all([child], grace_seconds=5)
