import json
from typing import Any

import pytest

from shared.contracts import WorkClass
from shared.keys import batch_keys, job_keys, payload_keys, pool_keys, queue_keys, service_keys, webhook_keys
from shared.store.scripts import script_source
from tests.shared.support import JOB, MODEL

_RETURN_KEYS = """
local keys = job_keys(KEYS[1])
keys['open interactive jobs'] = jobs_key(keys, 'interactive')
keys['lease of 7'] = lease_key(keys, 7)
keys['lease of 10'] = lease_key(keys, '10')
return cjson.encode(keys)
"""


def test_every_key_is_unique_and_starts_with_the_prefix() -> None:
    keys = [
        job_keys.job_ended_channel("listener"),
        service_keys.API_KEYS,
        job_keys.DEAD_LETTERS,
        service_keys.RECONCILER_LEADER,
        service_keys.CACHED_SCORES,
        queue_keys.UNACKED_INDEX,
        job_keys.job("job-1"),
        job_keys.request("job-1"),
        job_keys.documents("job-1"),
        job_keys.shards("job-1"),
        job_keys.results("job-1"),
        job_keys.lease("job-1", 0),
        job_keys.lease("job-1", 1),
        job_keys.idempotency("owner", "key"),
        service_keys.cached_score("digest"),
        webhook_keys.ENDPOINTS,
        webhook_keys.LANES,
        webhook_keys.COUNTS,
        webhook_keys.RUNNER_LEADER,
        webhook_keys.delivery("id"),
        webhook_keys.lane("id"),
        webhook_keys.pending("id"),
        webhook_keys.deliveries("owner", "id"),
        payload_keys.PAYLOADS,
        payload_keys.UNFINISHED_PAYLOADS,
        payload_keys.payload("files/name"),
        payload_keys.payload_data("version"),
        pool_keys.outstanding("m"),
        pool_keys.deadlines("m"),
        pool_keys.open_jobs("m", WorkClass.BATCH),
        pool_keys.load("m"),
        pool_keys.job_counts("m"),
        batch_keys.batch("batch-1"),
        batch_keys.open_batch("batch-1"),
        batch_keys.collected_requests("batch-1"),
        batch_keys.owned("job", "owner"),
        batch_keys.owned_open_batches("owner"),
        pool_keys.measurements("m"),
        pool_keys.workers("m"),
        queue_keys.queue("m", WorkClass.BATCH),
    ]
    assert all(key.startswith("rerankq:") for key in keys)
    assert len(set(keys)) == len(keys)


def test_queue_name_has_no_prefix_because_kombu_adds_it() -> None:
    assert queue_keys.queue_name("m", WorkClass.INTERACTIVE) == "queue:m:interactive"
    assert queue_keys.queue("m", WorkClass.INTERACTIVE) == "rerankq:queue:m:interactive"


@pytest.mark.parametrize("work_class", WorkClass)
@pytest.mark.parametrize("model", ["m", "org/model-v2.5", "batch"])
def test_work_class_is_parsed_from_a_queue_name(model: str, work_class: WorkClass) -> None:
    assert queue_keys.work_class_of(queue_keys.queue_name(model, work_class)) is work_class


def test_other_queue_name_has_no_work_class() -> None:
    with pytest.raises(ValueError, match="celery"):
        queue_keys.work_class_of("celery")


def test_scripts_and_python_build_the_same_keys(redis_client: Any) -> None:
    common = script_source("cancel").partition("-- Cancels a job")[0]
    keys = redis_client.eval(common + _RETURN_KEYS, 3, *job_keys.script_keys(JOB, MODEL))
    assert json.loads(keys) == {
        "job": job_keys.job(JOB),
        "request": job_keys.request(JOB),
        "documents": job_keys.documents(JOB),
        "shards": job_keys.shards(JOB),
        "results": job_keys.results(JOB),
        "lease of 7": job_keys.lease(JOB, 7),
        "lease of 10": job_keys.lease(JOB, 10),
        "pool": pool_keys.outstanding(MODEL).removesuffix("outstanding"),
        "load": pool_keys.load(MODEL),
        "open interactive jobs": pool_keys.open_jobs(MODEL, WorkClass.INTERACTIVE),
        "outstanding": pool_keys.outstanding(MODEL),
        "deadlines": pool_keys.deadlines(MODEL),
    }


def test_key_of_an_empty_job_id_is_the_prefix_of_all_job_keys() -> None:
    """The reconciler's scripts receive this prefix and append the job ids that they find."""
    assert job_keys.job("") + JOB == job_keys.job(JOB)
