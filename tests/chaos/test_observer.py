"""The observer sees what it is there to see: jobs lost, done twice, done wrongly; and a good one is left in peace."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from shared.ledger.job_record import JobStatus
from tests.chaos.cases import Case, Kind, Ranking, make_case
from tests.chaos.ledger_view import Job, Lease, LedgerView, Shard
from tests.chaos.observer import Observer
from tests.chaos.report import Row

CASE = make_case(1, 7, Kind.JOB)
DONE = Shard("done", "host-12:a", accepted=1)
HELD = Shard("leased", "host-12:a", accepted=0)
RUNNING = Job(JobStatus.RUNNING, "", (HELD,))
SUCCEEDED = Job(JobStatus.SUCCEEDED, "", (DONE,))


class FakeLedger(LedgerView):
    """What the observer reads, set by hand."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}

    def job_ids(self) -> set[str]:
        return set(self.jobs)

    def read(self, job_ids: Iterable[str]) -> dict[str, Job | None]:
        return {job_id: self.jobs.get(job_id) for job_id in job_ids}

    def case_numbers(self, job_ids: Iterable[str]) -> dict[str, int | None]:
        return dict.fromkeys(job_ids, CASE.number)


class Watcher:
    """An observer that looks when it is told to; its threads are not started."""

    def __init__(self, case: Case = CASE) -> None:
        self.ledger = FakeLedger()
        self.row = Row("a fault")
        self.observer = Observer(self.ledger, ["http://127.0.0.1:9"], self.row)
        self.observer.expect(case)
        self._now = 100.0

    def sees(self, *jobs: Job | None) -> None:
        """The job `job-1` as it is, look by look."""
        for job in jobs:
            self.ledger.jobs = {"job-1": job} if job else {}
            self._now += 10.0
            self.observer._tick(self._now)


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


def test_a_job_that_runs_and_succeeds_and_is_forgotten_is_fine(watcher: Watcher) -> None:
    watcher.sees(RUNNING, SUCCEEDED, SUCCEEDED, None)
    watcher.observer.close_books()
    assert watcher.row.problems == []
    assert watcher.row.jobs == 1


def test_a_job_that_does_not_end_is_lost(watcher: Watcher) -> None:
    watcher.sees(RUNNING)
    watcher.observer.close_books()
    assert len(watcher.row.lost) == 1


def test_a_job_that_was_accepted_and_never_seen_is_lost(watcher: Watcher) -> None:
    watcher.observer.accepted("job-1", CASE)
    watcher.sees(None)
    watcher.observer.close_books()
    assert len(watcher.row.lost) == 1


def test_a_job_that_vanishes_while_it_runs_is_lost(watcher: Watcher) -> None:
    watcher.sees(RUNNING, None)
    assert "vanished" in watcher.row.lost[0]


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.EXPIRED, JobStatus.CANCELED])
def test_a_job_without_a_result_is_lost(watcher: Watcher, status: JobStatus) -> None:
    watcher.sees(RUNNING, replace(RUNNING, status=status))
    assert len(watcher.row.lost) == 1


def test_a_caller_that_lost_its_connection_may_find_its_job_canceled(watcher: Watcher) -> None:
    watcher.observer.broke(CASE)
    watcher.sees(RUNNING, replace(RUNNING, status=JobStatus.CANCELED))
    assert watcher.row.problems == []


def test_two_final_states_are_one_too_many(watcher: Watcher) -> None:
    watcher.sees(SUCCEEDED, replace(SUCCEEDED, status=JobStatus.FAILED))
    assert len(watcher.row.duplicated) == 1


def test_a_shard_that_was_finished_twice_is_seen_also_after_the_end(watcher: Watcher) -> None:
    watcher.sees(SUCCEEDED, replace(SUCCEEDED, shards=(replace(DONE, accepted=2),)))
    assert len(watcher.row.duplicated) == 1


def test_a_success_without_an_accepted_finish_is_wrong(watcher: Watcher) -> None:
    watcher.sees(replace(SUCCEEDED, shards=(DONE, replace(DONE, accepted=0))))
    assert len(watcher.row.wrong) == 1


def test_one_idempotency_key_has_one_job(watcher: Watcher) -> None:
    watcher.observer.accepted("job-1", CASE, keyed=True)
    watcher.observer.accepted("job-1", CASE, keyed=True)
    assert watcher.row.problems == []
    watcher.observer.accepted("job-2", CASE, keyed=True)
    assert len(watcher.row.duplicated) == 1


def test_a_poison_job_has_to_fail_and_say_why() -> None:
    case = make_case(1, 7, Kind.POISON)
    good, mute, alive = Watcher(case), Watcher(case), Watcher(case)
    good.sees(Job(JobStatus.FAILED, '{"message": "the worker died 3 times"}', (HELD,)))
    assert good.row.problems == []
    mute.sees(Job(JobStatus.FAILED, "", (HELD,)))
    alive.sees(SUCCEEDED)
    assert len(mute.row.wrong) == len(alive.row.wrong) == 1


@pytest.mark.parametrize("ranking", [[], CASE.expected()[:-1], CASE.expected()[::-1]])
def test_another_ranking_is_wrong(watcher: Watcher, ranking: Ranking) -> None:
    watcher.observer.answered("job-1", CASE, ranking)
    assert len(watcher.row.wrong) == 1


def test_the_undisturbed_ranking_is_right(watcher: Watcher) -> None:
    watcher.observer.answered("job-1", CASE, CASE.expected())
    assert watcher.row.problems == []


def test_a_lease_has_recovered_when_another_holds_it(watcher: Watcher) -> None:
    watcher.sees(RUNNING)
    lease = Lease("job-1", 0, HELD.token)
    assert lease.held_by(12)
    assert not lease.held_by(1)
    watcher.observer.watch([lease], watcher.row, since=0.0)
    watcher.sees(RUNNING, replace(RUNNING, shards=(Shard("queued", "", 0),)))
    assert watcher.row.worst_recovery is None
    watcher.sees(replace(RUNNING, shards=(replace(HELD, token="host-13:b"),)))
    assert watcher.row.worst_recovery is not None
