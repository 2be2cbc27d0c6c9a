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
Command = Callable[..., int]


@pytest.fixture
def run_dead_letters(redis_url: str) -> Command:
    """Runs `python -m worker dead-letters` with these arguments. Returns the exit status."""
    return lambda *arguments: main(["--redis-url", redis_url, "dead-letters", *arguments])


@pytest.fixture
async def failed(ledger: JobLedger, redis_client: redis.Redis, store: StoreView) -> None:
    """A job of three shards: one is done, one exceeded its retry budget, one was never enqueued."""
    worker = WorkerLedger(redis_client, MODEL)
    await ledger.submit(make_submission(shards=3, enqueued=2, work_class=BATCH))
    worker.claim(make_lease(0))
    worker.finish(make_lease(0), make_scores(), BATCH)
    for _ in range(MAX_TRANSIENT_ERRORS + 1):
        worker.claim(make_lease(1))
        worker.retry_later(make_lease(1), 1.0, JobFailure("scoring_failed", "the engine is busy"))
    store.drop_messages()


@pytest.mark.usefixtures("failed")
def test_list_prints_one_line_per_dead_letter_with_its_failure(
    run_dead_letters: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_dead_letters("list") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith(f"  {MODEL}  {JOB}/1  the engine is busy")


@pytest.mark.usefixtures("redis_url")
def test_list_prints_nothing_when_the_list_is_empty(
    run_dead_letters: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_dead_letters("list") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("failed")
def test_show_prints_the_dead_letters_of_a_job_as_json(
    run_dead_letters: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_dead_letters("show", JOB) == 0
    (letter,) = json.loads(capsys.readouterr().out)
    assert (letter["job"], letter["shard"], letter["retries"]) == (JOB, 1, MAX_TRANSIENT_ERRORS + 1)
    assert run_dead_letters("show", "job-x") == 1


@pytest.mark.usefixtures("failed")
def test_retry_enqueues_only_unfinished_shards(
    run_dead_letters: Command, redis_client: redis.Redis, store: StoreView, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_dead_letters("retry", JOB) == 0
    assert capsys.readouterr().out == f"{JOB}: 2 of 3 shards are retried\n"
    assert store.dead_letters() == []
    assert [read_message(message) for message in store.messages(BATCH)] == [(JOB, 1), (JOB, 2)]
    worker = WorkerLedger(redis_client, MODEL)
    for shard in (1, 2):
        assert worker.claim(make_lease(shard, "token-2")).verdict is ClaimVerdict.RUN
        assert worker.finish(make_lease(shard, "token-2"), make_scores(), BATCH) is FinishVerdict.ACCEPTED
    assert redis_client.hget(job_keys.job(JOB), "status") == JobStatus.SUCCEEDED.encode()


@pytest.mark.usefixtures("failed")
def test_retry_rejects_unknown_jobs_and_jobs_that_neither_failed_nor_expired(
    run_dead_letters: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_dead_letters("retry", "job-x") == 1
    assert capsys.readouterr().err == "worker: job 'job-x' does not exist\n"
    assert run_dead_letters("retry", JOB) == 0
    assert run_dead_letters("retry", JOB) == 1
    assert capsys.readouterr().err == "worker: the job is queued, only one that failed or expired can be retried\n"


@pytest.mark.usefixtures("failed")
def test_retry_keeps_the_dead_letters_of_other_jobs(
    run_dead_letters: Command, redis_client: redis.Redis, store: StoreView
) -> None:
    redis_client.lpush(job_keys.DEAD_LETTERS, '{"job": "job-2"}')
    assert run_dead_letters("retry", JOB) == 0
    assert store.dead_letters() == [{"job": "job-2"}]


@pytest.mark.parametrize("arguments", [["list"], ["show", JOB], ["retry", JOB]])
def test_an_unreachable_redis_exits_with_status_2_and_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--redis-url", dead_redis_url(), "dead-letters", *arguments]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "worker: the job store cannot be reached; try again\n")


@pytest.mark.parametrize("arguments", [[], ["show"], ["retry"], ["remove", JOB]])
def test_invalid_arguments_exit_with_status_2(run_dead_letters: Command, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_dead_letters(*arguments)
    assert caught.value.code == 2
