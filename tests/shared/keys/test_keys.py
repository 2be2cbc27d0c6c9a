import json
from typing import Any

import pytest

from shared.contracts import WorkClass
from shared.keys import job_keys, pool_keys, queue_keys, service_keys
from shared.store.scripts import script_source
from tests.shared.support import JOB, MODEL

_SHOW_NAMES = """
local keys = job_keys(KEYS[1])
keys['jobs that somebody waits for'] = jobs_key(keys, 'interactive')
keys['lease of 7'] = lease_key(keys, 7)
keys['lease of 10'] = lease_key(keys, '10')
return cjson.encode(keys)
"""


def test_every_name_starts_with_the_prefix() -> None:
    names = [
        job_keys.JOB_ENDED_CHANNEL,
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
        pool_keys.outstanding("m"),
        pool_keys.deadlines("m"),
        pool_keys.open_jobs("m", WorkClass.BATCH),
        pool_keys.load("m"),
        pool_keys.measurements("m"),
        pool_keys.workers("m"),
        queue_keys.queue("m", WorkClass.BATCH),
    ]
    assert all(name.startswith("rerankq:") for name in names)
    assert len(set(names)) == len(names)


def test_kombu_puts_the_prefix_before_a_queue_itself() -> None:
    assert queue_keys.queue_name("m", WorkClass.INTERACTIVE) == "queue:m:interactive"
    assert queue_keys.queue("m", WorkClass.INTERACTIVE) == "rerankq:queue:m:interactive"


@pytest.mark.parametrize("work_class", WorkClass)
@pytest.mark.parametrize("model", ["m", "org/model-v2.5", "batch"])
def test_a_queue_tells_its_work_class(model: str, work_class: WorkClass) -> None:
    assert queue_keys.work_class_of(queue_keys.queue_name(model, work_class)) is work_class


def test_what_is_no_queue_has_no_work_class() -> None:
    with pytest.raises(ValueError, match="celery"):
        queue_keys.work_class_of("celery")


def test_the_scripts_give_a_jobs_keys_the_names_that_everybody_gives_them(redis_client: Any) -> None:
    common = script_source("cancel").partition("-- Cancels a job")[0]
    names = redis_client.eval(common + _SHOW_NAMES, 3, *job_keys.script_keys(JOB, MODEL))
    assert json.loads(names) == {
        "job": job_keys.job(JOB),
        "request": job_keys.request(JOB),
        "documents": job_keys.documents(JOB),
        "shards": job_keys.shards(JOB),
        "results": job_keys.results(JOB),
        "lease of 7": job_keys.lease(JOB, 7),
        "lease of 10": job_keys.lease(JOB, 10),
        "pool": pool_keys.outstanding(MODEL).removesuffix("outstanding"),
        "load": pool_keys.load(MODEL),
        "jobs that somebody waits for": pool_keys.open_jobs(MODEL, WorkClass.INTERACTIVE),
        "outstanding": pool_keys.outstanding(MODEL),
        "deadlines": pool_keys.deadlines(MODEL),
    }


def test_the_start_of_every_jobs_key_is_the_key_of_a_job_without_a_name() -> None:
    """What the reconciler's scripts are given: they add the ids that they find."""
    assert job_keys.job("") + JOB == job_keys.job(JOB)
