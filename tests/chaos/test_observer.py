"""The observer reports jobs that are lost, duplicated or wrong, and no others."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from shared.ledger.job_record import JobStatus
from tests.chaos.cases import Case, Kind, Ranking, make_case
from tests.chaos.ledger_view import Job, Lease, LedgerView, Shard
from tests.chaos.observer import Observer
from tests.chaos.report import ReportRow

CASE = make_case(1, 7, Kind.JOB)
DONE = Shard("done", "host-12:a", accepted=1)
HELD = Shard("leased", "host-12:a", accepted=0)
RUNNING = Job(JobStatus.RUNNING, "", (HELD,))
SUCCEEDED = Job(JobStatus.SUCCEEDED, "", (DONE,))


class FakeLedger(LedgerView):
    """A ledger view whose content the test sets."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}

    def job_ids(self) -> set[str]:
        return set(self.jobs)

    def read(self, job_ids: Iterable[str]) -> dict[str, Job | None]:
        return {job_id: self.jobs.get(job_id) for job_id in job_ids}

    def case_numbers(self, job_ids: Iterable[str]) -> dict[str, int | None]:
        return dict.fromkeys(job_ids, CASE.number)


class ManualObserver:
    """An observer without threads; each call of `observe` is one reading."""

    def __init__(self, case: Case = CASE) -> None:
        self.ledger = FakeLedger()
        self.row = ReportRow("a fault")
        self.observer = Observer(self.ledger, ["http://127.0.0.1:9"], self.row)
        self.observer.register(case)
        self._now = 100.0

    def observe(self, *jobs: Job | None) -> None:
        """Let the observer read `job-1` in each of these states, one after the other; None: it does not exist."""
        for job in jobs:
            self.ledger.jobs = {"job-1": job} if job else {}
            self._now += 10.0
            self.observer._tick(self._now)


@pytest.fixture
def manual() -> ManualObserver:
    return ManualObserver()


def test_a_job_that_succeeds_and_expires_causes_no_problem(manual: ManualObserver) -> None:
    manual.observe(RUNNING, SUCCEEDED, SUCCEEDED, None)
    manual.observer.report_unfinished()
    assert manual.row.problems == []
    assert manual.row.jobs == 1


def test_a_job_that_does_not_end_is_lost(manual: ManualObserver) -> None:
    manual.observe(RUNNING)
    manual.observer.report_unfinished()
    assert len(manual.row.lost) == 1


def test_an_accepted_job_that_is_never_found_is_lost(manual: ManualObserver) -> None:
    manual.observer.job_accepted("job-1", CASE)
    manual.observe(None)
    manual.observer.report_unfinished()
    assert len(manual.row.lost) == 1


def test_a_job_that_is_deleted_while_it_runs_is_lost(manual: ManualObserver) -> None:
    manual.observe(RUNNING, None)
    assert "deleted" in manual.row.lost[0]


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.EXPIRED, JobStatus.CANCELED])
def test_a_job_that_ends_without_a_result_is_lost(manual: ManualObserver, status: JobStatus) -> None:
    manual.observe(RUNNING, replace(RUNNING, status=status))
    assert len(manual.row.lost) == 1


def test_a_job_may_be_canceled_if_its_caller_lost_the_connection(manual: ManualObserver) -> None:
    manual.observer.connection_lost(CASE)
    manual.observe(RUNNING, replace(RUNNING, status=JobStatus.CANCELED))
    assert manual.row.problems == []


def test_a_second_final_status_is_reported_as_duplicated(manual: ManualObserver) -> None:
    manual.observe(SUCCEEDED, replace(SUCCEEDED, status=JobStatus.FAILED))
    assert len(manual.row.duplicated) == 1


def test_a_second_accepted_finish_is_reported_after_the_job_has_ended(manual: ManualObserver) -> None:
    manual.observe(SUCCEEDED, replace(SUCCEEDED, shards=(replace(DONE, accepted=2),)))
    assert len(manual.row.duplicated) == 1


def test_a_succeeded_job_with_an_unfinished_shard_is_wrong(manual: ManualObserver) -> None:
    manual.observe(replace(SUCCEEDED, shards=(DONE, replace(DONE, accepted=0))))
    assert len(manual.row.wrong) == 1


def test_a_second_job_for_an_idempotency_key_is_reported_as_duplicated(manual: ManualObserver) -> None:
    manual.observer.job_accepted("job-1", CASE, keyed=True)
    manual.observer.job_accepted("job-1", CASE, keyed=True)
    assert manual.row.problems == []
    manual.observer.job_accepted("job-2", CASE, keyed=True)
    assert len(manual.row.duplicated) == 1


def test_a_poison_job_must_fail_with_a_worker_crash_as_its_reason() -> None:
    case = make_case(1, 7, Kind.POISON)
    correct, without_reason, succeeded = ManualObserver(case), ManualObserver(case), ManualObserver(case)
    correct.observe(Job(JobStatus.FAILED, '{"message": "the worker died 3 times"}', (HELD,)))
    assert correct.row.problems == []
    without_reason.observe(Job(JobStatus.FAILED, "", (HELD,)))
    succeeded.observe(SUCCEEDED)
    assert len(without_reason.row.wrong) == len(succeeded.row.wrong) == 1


@pytest.mark.parametrize("ranking", [[], CASE.expected()[:-1], CASE.expected()[::-1]])
def test_an_unexpected_ranking_is_wrong(manual: ManualObserver, ranking: Ranking) -> None:
    manual.observer.result_received("job-1", CASE, ranking)
    assert len(manual.row.wrong) == 1


def test_the_expected_ranking_causes_no_problem(manual: ManualObserver) -> None:
    manual.observer.result_received("job-1", CASE, CASE.expected())
    assert manual.row.problems == []


def test_a_shard_has_recovered_when_another_worker_claims_it(manual: ManualObserver) -> None:
    manual.observe(RUNNING)
    lease = Lease("job-1", 0, HELD.token)
    assert lease.held_by(12)
    assert not lease.held_by(1)
    manual.observer.measure_recovery([lease], manual.row, since=0.0)
    manual.observe(RUNNING, replace(RUNNING, shards=(Shard("queued", "", 0),)))
    assert manual.row.worst_recovery is None
    manual.observe(replace(RUNNING, shards=(replace(HELD, token="host-13:b"),)))
    assert manual.row.worst_recovery is not None


def test_the_shards_of_a_batch_are_not_watched(manual: ManualObserver) -> None:
    manual.observer.measure_recovery([Lease("batch_1.7", 0, HELD.token)], manual.row, since=0.0)
    manual.observer.report_unfinished()
    assert manual.row.problems == []
