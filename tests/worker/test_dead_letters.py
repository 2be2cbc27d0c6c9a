import json
from collections.abc import Callable

import pytest
import redis

from shared.contracts import WorkClass
from shared.keys import job_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobFailure, JobStatus
from shared.ledger.limits import MAX_TRANSIENT_ERRORS
from shared.ledger.verdicts import ClaimVerdict, FinishVerdict
from shared.ledger.worker_ledger import WorkerLedger
from tests.shared.support import (
    JOB,
    MODEL,
    StoreView,
    dead_redis_url,
    make_lease,
    make_scores,
    make_submission,
    read_message,
)
from worker.__main__ import main

INTERACTIVE, BATCH = WorkClass.INTERACTIVE, WorkClass.BATCH
Dead = Callable[..., int]


@pytest.fixture
def dead(redis_url: str) -> Dead:
    """`python -m worker dead-letters ...`"""
    return lambda *arguments: main(["--redis-url", redis_url, "dead-letters", *arguments])


@pytest.fixture
async def failed(ledger: JobLedger, redis_client: redis.Redis, store: StoreView) -> None:
    """A job of three shards: one is done, one failed over its budget, one was never rung for."""
    worker = WorkerLedger(redis_client, MODEL)
    await ledger.submit(make_submission(shards=3, rung=2, work_class=BATCH))
    worker.claim(make_lease(0))
    worker.finish(make_lease(0), make_scores(), BATCH)
    for _ in range(MAX_TRANSIENT_ERRORS + 1):
        worker.claim(make_lease(1))
        worker.retry_later(make_lease(1), 1.0, JobFailure("scoring_failed", "the engine is busy"))
    store.drop_messages()


@pytest.mark.usefixtures("failed")
def test_every_note_is_a_line_that_says_what_and_why(dead: Dead, capsys: pytest.CaptureFixture[str]) -> None:
    assert dead("list") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith(f"  {MODEL}  {JOB}/1  the engine is busy")


@pytest.mark.usefixtures("redis_url")
def test_without_a_note_there_is_no_line(dead: Dead, capsys: pytest.CaptureFixture[str]) -> None:
    assert dead("list") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("failed")
def test_all_that_is_known_of_a_job_is_shown(dead: Dead, capsys: pytest.CaptureFixture[str]) -> None:
    assert dead("show", JOB) == 0
    (note,) = json.loads(capsys.readouterr().out)
    assert (note["job"], note["shard"], note["retries"]) == (JOB, 1, MAX_TRANSIENT_ERRORS + 1)
    assert dead("show", "job-x") == 1


@pytest.mark.usefixtures("failed")
def test_a_job_is_tried_again_without_what_is_done(
    dead: Dead, redis_client: redis.Redis, store: StoreView, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dead("retry", JOB) == 0
    assert capsys.readouterr().out == f"{JOB}: 2 of 3 shards are retried\n"
    assert store.dead() == []
    assert [read_message(message) for message in store.messages(BATCH)] == [(JOB, 1), (JOB, 2)]
    worker = WorkerLedger(redis_client, MODEL)
    for shard in (1, 2):
        assert worker.claim(make_lease(shard, "again")).verdict is ClaimVerdict.RUN
        assert worker.finish(make_lease(shard, "again"), make_scores(), BATCH) is FinishVerdict.ACCEPTED
    assert redis_client.hget(job_keys.job(JOB), "status") == JobStatus.SUCCEEDED.encode()


@pytest.mark.usefixtures("failed")
def test_only_a_failed_job_that_is_there_is_tried_again(dead: Dead, capsys: pytest.CaptureFixture[str]) -> None:
    assert dead("retry", "job-x") == 1
    assert capsys.readouterr().err == "worker: job 'job-x' does not exist\n"
    assert dead("retry", JOB) == 0
    assert dead("retry", JOB) == 1
    assert capsys.readouterr().err == "worker: the job is queued, only a failed job can be retried\n"


@pytest.mark.usefixtures("failed")
def test_the_notes_of_other_jobs_stay(dead: Dead, redis_client: redis.Redis, store: StoreView) -> None:
    redis_client.lpush(job_keys.DEAD_LETTERS, '{"job": "job-2"}')
    assert dead("retry", JOB) == 0
    assert store.dead() == [{"job": "job-2"}]


@pytest.mark.parametrize("arguments", [["list"], ["show", JOB], ["retry", JOB]])
def test_without_redis_it_is_one_line_and_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--redis-url", dead_redis_url(), "dead-letters", *arguments]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "worker: the job store cannot be reached; try again\n")


@pytest.mark.parametrize("arguments", [[], ["show"], ["retry"], ["bury", JOB]])
def test_a_wrong_command_line_is_status_2(dead: Dead, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        dead(*arguments)
    assert caught.value.code == 2
