import json
from typing import Any

import pytest

from shared import keys
from shared.contracts import WorkClass
from shared.store.scripts import job_script_keys, script_source
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
        keys.FINISHED_CHANNEL,
        keys.API_KEYS,
        keys.DEAD,
        keys.RECONCILER,
        keys.SCORES,
        keys.UNACKED_INDEX,
        keys.job("job-1"),
        keys.request("job-1"),
        keys.documents("job-1"),
        keys.shards("job-1"),
        keys.results("job-1"),
        keys.lease("job-1", 0),
        keys.lease("job-1", 1),
        keys.idempotency("owner", "key"),
        keys.score("digest"),
        keys.outstanding("m"),
        keys.deadlines("m"),
        keys.jobs("m", WorkClass.BATCH),
        keys.load("m"),
        keys.measured("m"),
        keys.workers("m"),
        keys.queue("m", WorkClass.BATCH),
    ]
    assert all(name.startswith("rerankq:") for name in names)
    assert len(set(names)) == len(names)


def test_kombu_puts_the_prefix_before_a_queue_itself() -> None:
    assert keys.queue_name("m", WorkClass.INTERACTIVE) == "queue:m:interactive"
    assert keys.queue("m", WorkClass.INTERACTIVE) == "rerankq:queue:m:interactive"


@pytest.mark.parametrize("work_class", WorkClass)
@pytest.mark.parametrize("model", ["m", "org/model-v2.5", "batch"])
def test_a_queue_tells_its_work_class(model: str, work_class: WorkClass) -> None:
    assert keys.work_class_of(keys.queue_name(model, work_class)) is work_class


def test_what_is_no_queue_has_no_work_class() -> None:
    with pytest.raises(ValueError, match="celery"):
        keys.work_class_of("celery")


def test_the_scripts_give_a_jobs_keys_the_names_that_everybody_gives_them(redis_client: Any) -> None:
    common = script_source("cancel").partition("-- Cancels a job")[0]
    names = redis_client.eval(common + _SHOW_NAMES, 3, *job_script_keys(JOB, MODEL))
    assert json.loads(names) == {
        "job": keys.job(JOB),
        "request": keys.request(JOB),
        "documents": keys.documents(JOB),
        "shards": keys.shards(JOB),
        "results": keys.results(JOB),
        "lease of 7": keys.lease(JOB, 7),
        "lease of 10": keys.lease(JOB, 10),
        "pool": keys.outstanding(MODEL).removesuffix("outstanding"),
        "load": keys.load(MODEL),
        "jobs that somebody waits for": keys.jobs(MODEL, WorkClass.INTERACTIVE),
        "outstanding": keys.outstanding(MODEL),
        "deadlines": keys.deadlines(MODEL),
    }


def test_the_start_of_every_jobs_key_is_the_key_of_a_job_without_a_name() -> None:
    """What the reconciler's scripts are given: they add the ids that they find."""
    assert keys.job("") + JOB == keys.job(JOB)
