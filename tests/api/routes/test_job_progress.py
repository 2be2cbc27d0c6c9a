"""The progress of a job, as `GET /v1/jobs/{id}` describes it."""

from dataclasses import replace

from api.routes.jobs import describe_progress
from shared.ledger.job_record import JobStatus
from tests.api.support import make_record

STARTED_SECONDS = make_record().started_ms / 1000


def test_the_rate_is_that_of_the_seconds_between_start_and_end() -> None:
    assert describe_progress(make_record(), now=STARTED_SECONDS + 100) == {
        "pairs_total": 2,
        "pairs_done": 2,
        "shards_total": 1,
        "shards_done": 1,
        "pairs_per_second": 2.0,
    }


def test_a_job_that_took_less_than_a_millisecond_has_a_rate_as_well() -> None:
    record = replace(make_record(), finished_ms=make_record().started_ms)
    assert describe_progress(record, now=STARTED_SECONDS)["pairs_per_second"] == 2000.0


def test_a_running_job_has_an_estimated_end() -> None:
    running = replace(make_record(), status=JobStatus.RUNNING, finished_ms=0, pairs=10, pairs_scored=4)
    progress = describe_progress(running, now=STARTED_SECONDS + 2)
    assert (progress["pairs_per_second"], progress["estimated_finish"]) == (2.0, STARTED_SECONDS + 2 + 3)
