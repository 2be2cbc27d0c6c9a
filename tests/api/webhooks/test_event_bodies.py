"""What a receiver gets: the job or batch as its caller reads it, signed, in the form that it expects."""

import json
from dataclasses import replace

import pytest

from api.routes.jobs import describe
from api.webhooks.endpoints import new_endpoint
from shared.contracts import WorkClass
from shared.keys import job_keys
from shared.ledger.batch_record import BatchStatus
from shared.ledger.delivery_record import DeliveryRecord, DeliveryStatus
from shared.owner_limits import OwnerLimits
from shared.webhooks import WebhookForm, WebhookTarget
from tests.api.webhooks.conftest import Outbox, eventually
from tests.api.webhooks.outcomes import SECRET, delivered, verify
from tests.receivers import Receiver, Reply
from tests.shared.ledger.batches import BATCH, TOKEN, make_batch, read
from tests.shared.ledger.test_job_ledger import ENDS, End
from tests.shared.support import JOB, OWNER, StoreView, make_lease, make_scores, make_submission, read_record


async def test_an_event_has_the_job_as_its_caller_reads_it(outbox: Outbox) -> None:
    outbox.start()
    with Receiver() as receiver:
        await outbox.end_job(WebhookTarget(receiver.url, secret=SECRET))
        await delivered(outbox)
        [request] = receiver.received
    event = request.event
    assert (event["type"], event["data"]["id"], event["data"]["status"]) == ("job.succeeded", "job-1", "succeeded")
    assert event["data"]["results"] == "/v1/jobs/job-1/results"
    assert event["timestamp"].endswith("Z")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("rerankq/")
    verify(request, SECRET)
    assert (await outbox.only_delivery()).status is DeliveryStatus.DELIVERED


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
async def test_every_end_of_a_job_arrives_as_its_caller_reads_it(outbox: Outbox, store: StoreView, end: End) -> None:
    outbox.start()
    with Receiver() as receiver:
        webhooks = await outbox.subscriptions.of_job(OWNER, WebhookTarget(receiver.url, secret=SECRET))
        await outbox.ledger.submit(replace(make_submission(JOB, shards=2), webhooks=webhooks))
        for shard in (0, 1):
            outbox.worker.claim(make_lease(shard))
        outbox.worker.finish(make_lease(0), make_scores(), WorkClass.INTERACTIVE)
        await end(outbox.ledger, outbox.worker, store)
        await delivered(outbox)
        [request] = receiver.received
    record = await read_record(outbox.ledger)
    verify(request, SECRET)
    assert request.event["type"] == f"job.{record.status}"
    assert request.event["data"] == json.loads(json.dumps(describe(record)))


async def test_the_default_secret_signs_without_one_in_the_request(outbox: Outbox) -> None:
    outbox.start()
    with Receiver() as receiver:
        await outbox.end_job(WebhookTarget(receiver.url))
        await delivered(outbox)
        verify(receiver.received[0], (await outbox.endpoints.default(OWNER)).secret)


async def test_both_secrets_sign_after_a_rotation(outbox: Outbox) -> None:
    outbox.start()
    with Receiver() as receiver:
        endpoint = new_endpoint(receiver.url)
        await outbox.endpoints.create(OWNER, endpoint)
        rotated = await outbox.endpoints.rotate(OWNER, endpoint.id)
        await outbox.end_job()
        await delivered(outbox)
        [request] = receiver.received
    assert rotated is not None
    assert endpoint.secret != rotated.secret
    verify(request, endpoint.secret, rotated.secret)


async def test_a_body_does_not_change_when_the_job_is_deleted_between_tries(outbox: Outbox) -> None:
    outbox.start()
    with Receiver(lambda request: Reply(500 if request.count == 1 else 200)) as receiver:
        await outbox.end_job(WebhookTarget(receiver.url))
        await eventually(lambda: receiver.received)
        await outbox.client.delete(job_keys.job("job-1"))
        await delivered(outbox)
        assert len({request.body for request in receiver.received}) == 1


async def test_a_job_that_is_gone_is_reported_with_its_id_and_status(outbox: Outbox) -> None:
    with Receiver() as receiver:
        await outbox.end_job(WebhookTarget(receiver.url))
        await outbox.client.delete(job_keys.job("job-1"))
        outbox.start()
        await delivered(outbox)
        assert receiver.received[0].event["data"] == {"id": "job-1", "object": "job", "status": "succeeded"}


async def test_an_ended_batch_is_reported(outbox: Outbox) -> None:
    outbox.start()
    with Receiver() as receiver:
        webhooks = await outbox.subscriptions.of_batch(OWNER, WebhookTarget(receiver.url))
        await outbox.batches.create(make_batch(), seconds=60.0, limits=OwnerLimits(), webhooks=webhooks)
        await outbox.batches.acquire(BATCH, TOKEN)
        await outbox.batches.end(await read(outbox.batches), TOKEN, BatchStatus.COMPLETED)
        await delivered(outbox)
        event = receiver.received[0].event
    assert (event["type"], event["data"]["object"]) == ("batch.ended", "batch")
    assert (event["data"]["id"], event["data"]["status"]) == (BATCH, "completed")


async def test_runpods_form_has_the_id_and_runpods_status(outbox: Outbox) -> None:
    outbox.start()
    with Receiver() as receiver:
        await outbox.end_job(WebhookTarget(receiver.url, form=WebhookForm.RUNPOD))
        await delivered(outbox)
        assert receiver.received[0].event == {"id": "job-1", "status": "COMPLETED"}


async def test_a_form_can_have_its_own_bodies(outbox: Outbox) -> None:
    async def build(delivery: DeliveryRecord) -> bytes:
        return json.dumps({"id": delivery.subject, "output": [1]}).encode()

    outbox.bodies.register(WebhookForm.RUNPOD, build)
    outbox.start()
    with Receiver() as receiver:
        await outbox.end_job(WebhookTarget(receiver.url, form=WebhookForm.RUNPOD))
        await delivered(outbox)
        assert receiver.received[0].event == {"id": "job-1", "output": [1]}
