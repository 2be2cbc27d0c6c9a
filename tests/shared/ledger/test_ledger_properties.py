"""Runs random sequences of operations on the real ledger and compares it with a model.

The invariants: A job has one status, and only a retry changes a final status. The ledger accepts one finish per shard.
A job has a result exactly when it succeeded. The unfinished shards of an unfinished job are outstanding, and the
reconciler checks them. The shards in the pool's order are those that can be claimed. The pool's load and its owners'
backlogs equal its outstanding work. Only an exhausted budget writes a dead letter.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

import shared.ledger.job_ledger
import shared.ledger.worker_ledger
from shared.contracts import WorkClass
from shared.keys import job_keys, pool_keys
from shared.ledger.encoding import decode_scores
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobFailure, JobRecord, JobStatus
from shared.ledger.verdicts import ClaimRequest, ClaimVerdict, FinishVerdict, FreeSlots, RenewVerdict, ShardLease
from shared.ledger.worker_ledger import WorkerLedger
from shared.pools.signals import ClassLoad, read_signals_blocking
from shared.queue.messages import WakeUp
from shared.sharding import ShardSize
from shared.store.client import connect_async
from tests.shared.conftest import LIFETIMES
from tests.shared.support import MODEL, OWNER, StoreView, make_scores, make_submission

T = TypeVar("T")

MAX_CRASHES = 2
MAX_TRANSIENT_ERRORS = 1
"""Low limits, so that a few random steps exhaust them."""
INTERACTIVE = WorkClass.INTERACTIVE
FAILURE = JobFailure("scoring_failed", "the engine failed")
QUEUED, RUNNING, SUCCEEDED = JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUCCEEDED
RETRIED = (JobStatus.FAILED, JobStatus.EXPIRED)


@dataclass
class Shard:
    """The expected state of one shard. `token` belongs to the valid claim. `retried`: it waits for a retry."""

    status: str
    token: str | None = None
    has_lease: bool = False
    due: bool = False
    retried: bool = False
    crashes: int = 0
    retries: int = 0
    accepted: float | None = None

    def requeue(self) -> None:
        self.status, self.token, self.has_lease = "queued", None, False

    def claim(self, token: str) -> None:
        self.status, self.token, self.has_lease, self.due, self.retried = "leased", token, True, False, False


@dataclass
class Job:
    """The expected state of one job. `status` is None after the job is deleted."""

    record: JobRecord
    shards: list[Shard]
    status: JobStatus | None = QUEUED
    overdue: bool = False

    @property
    def unfinished(self) -> bool:
        return self.status is not None and not self.status.final

    def end(self, status: JobStatus | None) -> None:
        self.status = status
        for shard in self.shards:
            shard.has_lease = shard.due = False


class LedgerMachine(RuleBasedStateMachine):
    """Every rule applies one operation to the ledger and to the model, and compares the results."""

    jobs: Bundle[str] = Bundle("jobs")
    leases: Bundle[ShardLease] = Bundle("leases")

    def __init__(self, runner: asyncio.Runner, ledger: JobLedger, client: redis.Redis) -> None:
        super().__init__()
        self._runner = runner
        self._ledger = ledger
        self._client: Any = client
        self._worker = WorkerLedger(client, MODEL)
        self._store = StoreView(client)
        self._model: dict[str, Job] = {}
        self._dead_letters: list[tuple[str, int]] = []
        self._count = 0

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(call)

    def _next_number(self) -> int:
        self._count += 1
        return self._count

    def _find(self, lease: ShardLease) -> tuple[Job, Shard]:
        job = self._model[lease.job_id]
        return job, job.shards[lease.shard]

    @initialize()
    def start_with_an_empty_store(self) -> None:
        self._client.flushall()

    # Operations of callers.

    @rule(target=jobs, shards=st.integers(1, 3), window=st.integers(1, 3), work_class=st.sampled_from(WorkClass))
    def submit(self, shards: int, window: int, work_class: WorkClass) -> str:
        enqueued = min(shards, window)
        job_id = f"job-{self._next_number():03}"
        self._run(self._ledger.submit(make_submission(job_id, shards=shards, enqueued=enqueued, work_class=work_class)))
        record = self._run(self._ledger.read(job_id))
        assert record is not None
        model = [Shard("queued" if number < enqueued else "waiting") for number in range(shards)]
        self._model[job_id] = Job(record, model)
        return job_id

    @rule(job_id=jobs)
    def submit_again(self, job_id: str) -> None:
        """The caller repeats the request after a lost response. A deleted job would be created again."""
        job = self._model[job_id]
        if job.status is not None:
            self._run(self._ledger.submit(make_submission(job_id, shards=len(job.shards))))

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        job = self._model[job_id]
        if job.unfinished:
            job.end(JobStatus.CANCELED)
        assert self._run(self._ledger.cancel(job.record)) == job.status

    @rule(job_id=consumes(jobs))
    def delete(self, job_id: str) -> None:
        job = self._model[job_id]
        existed = job.status is not None
        job.end(None)
        assert self._run(self._ledger.delete(job.record)) == existed
        assert not self._client.keys(f"{job_keys.job(job_id)}*")

    @rule(job_id=jobs)
    def retry_any_job(self, job_id: str) -> None:
        self._retry(job_id)

    @precondition(lambda self: self._failed_jobs())
    @rule(data=st.data())
    def retry_failed_job(self, data: st.DataObject) -> None:
        """Retries a job that failed or expired, because `retry_any_job` seldom draws one."""
        self._retry(data.draw(st.sampled_from(self._failed_jobs())))

    def _failed_jobs(self) -> list[str]:
        return [job_id for job_id, job in self._model.items() if job.status in RETRIED]

    def _retry(self, job_id: str) -> None:
        job = self._model[job_id]
        wake_ups = self._run(self._ledger.retry_failed(job.record, 60))
        if job.status not in RETRIED:
            assert wake_ups is None
            return
        job.status, job.overdue = QUEUED, False
        unfinished = [number for number, shard in enumerate(job.shards) if shard.status != "done"]
        assert wake_ups == [WakeUp(job_id, number, job.record.work_class) for number in unfinished]
        for number in unfinished:
            job.shards[number] = Shard("queued", due=True)

    # Operations of workers.

    @rule(target=leases, job_id=jobs, data=st.data())
    def claim(self, job_id: str, data: st.DataObject) -> Any:
        """Claims any shard, even one without a message: the claim decides, not the message."""
        shard = data.draw(st.integers(0, len(self._model[job_id].shards) - 1))
        lease = ShardLease(job_id, shard, f"token {self._next_number()}")
        return lease if self._claim(lease) is ClaimVerdict.RUN else multiple()

    @precondition(lambda self: self._shards("queued", "waiting"))
    @rule(target=leases, data=st.data())
    def claim_free_shard(self, data: st.DataObject) -> Any:
        job_id, shard = data.draw(st.sampled_from(self._shards("queued", "waiting")))
        lease = ShardLease(job_id, shard, f"token {self._next_number()}")
        return lease if self._claim(lease) is ClaimVerdict.RUN else multiple()

    def _shards(self, *states: str) -> list[tuple[str, int]]:
        """The shards in `states` of unfinished jobs, as (job id, shard number)."""
        return [
            (job_id, number)
            for job_id, job in self._model.items()
            for number, shard in enumerate(job.shards)
            if job.unfinished and shard.status in states
        ]

    @rule(target=leases, slots=st.integers(1, 4), batch=st.integers(0, 4))
    def claim_next(self, slots: int, batch: int) -> Any:
        """Claims what is next: each shard could be claimed, interactive ones come first, and the slots are used."""
        free = Counter(job.record.work_class for job in self._unfinished_jobs() for _ in self._ordered(job))
        request = ClaimRequest("worker-1", f"token {self._next_number()}", FreeSlots(slots, min(slots, batch)))
        _, claimed = self._worker.finish_and_claim([], request)
        for job in self._unfinished_jobs():
            # The claims skip and expire overdue jobs that they meet.
            if job.overdue and self._run(self._ledger.read(job.record.id)).status is JobStatus.EXPIRED:  # type: ignore[union-attr]
                free.subtract({job.record.work_class: len(self._ordered(job))})
                job.end(JobStatus.EXPIRED)
        for lease, work_class, claim in claimed:
            job, shard = self._find(lease)
            assert claim.verdict is ClaimVerdict.RUN
            assert (shard.status, shard.retried, job.overdue, work_class) == (
                "queued",
                False,
                False,
                job.record.work_class,
            )
            job.status = RUNNING
            shard.claim(lease.token)
        counts = Counter(shard.work_class for shard in claimed)
        assert counts[WorkClass.BATCH] <= min(slots, batch)
        assert counts.total() <= slots
        if counts.total() < slots:
            assert counts[INTERACTIVE] == free[INTERACTIVE]
        return multiple(*(shard.lease for shard in claimed))

    @staticmethod
    def _ordered(job: Job) -> list[int]:
        """The shards of an unfinished job that can be claimed."""
        return [number for number, shard in enumerate(job.shards) if shard.status == "queued" and not shard.retried]

    @rule(lease=leases)
    def claim_again(self, lease: ShardLease) -> None:
        """The worker repeats the claim after a lost response."""
        shard = self._find(lease)[1]
        if shard.token in (lease.token, None):
            self._claim(lease)

    def _claim(self, lease: ShardLease) -> ClaimVerdict:
        job, shard = self._find(lease)
        claim = self._worker.claim(lease)
        if job.status is None:
            expected = ClaimVerdict.GONE
        elif not job.unfinished or job.overdue:
            expected = ClaimVerdict.ENDED
            if job.unfinished:
                job.end(JobStatus.EXPIRED)
        elif shard.status == "done":
            expected = ClaimVerdict.DONE
        elif shard.status == "leased" and shard.token != lease.token:
            expected = ClaimVerdict.HELD
        else:
            expected = ClaimVerdict.RUN
            job.status = RUNNING
            shard.claim(lease.token)
        assert claim.verdict is expected
        return claim.verdict

    @rule(lease=leases)
    def renew(self, lease: ShardLease) -> None:
        job, shard = self._find(lease)
        if job.unfinished and job.overdue:
            job.end(JobStatus.EXPIRED)
        if not job.unfinished:
            expected = RenewVerdict.ENDED
        elif shard.status == "leased" and shard.token == lease.token:
            expected = RenewVerdict.LIVE
            shard.has_lease = True
        else:
            expected = RenewVerdict.LOST
        assert self._worker.renew([lease]) == [expected]

    def _expected_verdict(self, lease: ShardLease) -> FinishVerdict:
        job, shard = self._find(lease)
        if not job.unfinished:
            return FinishVerdict.ENDED
        live = shard.status == "leased" and shard.token == lease.token
        return FinishVerdict.ACCEPTED if live else FinishVerdict.STALE

    @rule(lease=leases)
    def finish(self, lease: ShardLease) -> None:
        self._finish(lease)

    @precondition(lambda self: self._shards("leased"))
    @rule(data=st.data())
    def finish_leased_shard(self, data: st.DataObject) -> None:
        job_id, shard = data.draw(st.sampled_from(self._shards("leased")))
        self._finish(ShardLease(job_id, shard, self._model[job_id].shards[shard].token or ""))

    def _finish(self, lease: ShardLease) -> None:
        expected = self._expected_verdict(lease)
        score = float(self._next_number())
        assert self._worker.finish(lease, make_scores(score), INTERACTIVE) is expected
        if expected is not FinishVerdict.ACCEPTED:
            return
        job, shard = self._find(lease)
        assert shard.accepted is None
        shard.status, shard.has_lease, shard.due, shard.accepted = "done", False, False, score
        if all(shard.status == "done" for shard in job.shards):
            job.end(SUCCEEDED)
        elif waiting := [shard for shard in job.shards if shard.status == "waiting"]:
            waiting[0].status = "queued"

    @rule(lease=leases)
    def fail(self, lease: ShardLease) -> None:
        expected = self._expected_verdict(lease)
        assert self._worker.fail(lease, FAILURE) is expected
        if expected is FinishVerdict.ACCEPTED:
            self._find(lease)[0].end(JobStatus.FAILED)

    @rule(lease=leases)
    def release(self, lease: ShardLease) -> None:
        expected = self._expected_verdict(lease)
        assert self._worker.release(lease, INTERACTIVE) is expected
        if expected is FinishVerdict.ACCEPTED:
            shard = self._find(lease)[1]
            shard.requeue()
            shard.due = False

    @rule(lease=leases)
    def retry_later(self, lease: ShardLease) -> None:
        expected = self._expected_verdict(lease)
        if expected is FinishVerdict.ACCEPTED:
            shard = self._find(lease)[1]
            shard.retries += 1
            shard.due = False
            if shard.retries > MAX_TRANSIENT_ERRORS:
                expected = FinishVerdict.FAILED
                self._dead_letter(lease.job_id, lease.shard)
            else:
                shard.requeue()
                shard.retried = True
        assert self._worker.retry_later(lease, 60.0, FAILURE) is expected

    def _dead_letter(self, job_id: str, shard: int) -> None:
        self._model[job_id].end(JobStatus.FAILED)
        self._dead_letters.insert(0, (job_id, shard))

    # The passing of time, and the reconciler.

    @rule(lease=leases)
    def lease_expires(self, lease: ShardLease) -> None:
        shard = self._find(lease)[1]
        if shard.has_lease and shard.token == lease.token:
            shard.has_lease, shard.due = False, True
            self._store.end_lease(lease.shard, job_id=lease.job_id)

    @rule(job_id=jobs)
    def shards_become_due(self, job_id: str) -> None:
        job = self._model[job_id]
        if job.unfinished:
            for number, shard in enumerate(job.shards):
                if shard.status in ("queued", "leased"):
                    shard.due = True
                    self._store.make_due(number, job_id=job_id)

    @rule(job_id=jobs)
    def deadline_passes(self, job_id: str) -> None:
        job = self._model[job_id]
        if job.unfinished and not job.overdue:
            job.overdue = True
            self._store.pass_deadline(job_id)

    @rule()
    def messages_are_lost(self) -> None:
        self._store.drop_messages()

    @precondition(lambda self: any(shard.due for job in self._model.values() for shard in job.shards))
    @rule()
    def reconcile(self) -> None:
        message_count = sum(len(self._store.messages(work_class)) for work_class in WorkClass)
        enough_messages = message_count >= len(self._store.outstanding())
        due = self._client.zrangebyscore(pool_keys.outstanding(MODEL), "-inf", self._store.now_ms())
        expected: list[WakeUp] = []
        for member in due:
            job_id, _, number = member.decode().rpartition("/")
            job, shard = self._model[job_id], self._model[job_id].shards[int(number)]
            if not job.unfinished:
                # Another shard of this job has just exceeded its budget.
                continue
            assert shard.due
            shard.due = shard.retried = False
            if shard.status == "leased" and shard.has_lease:
                continue
            if shard.status == "leased":
                shard.crashes += 1
                if shard.crashes >= MAX_CRASHES:
                    self._dead_letter(job_id, int(number))
                    continue
                shard.requeue()
            elif enough_messages:
                continue
            expected.append(WakeUp(job_id, int(number), job.record.work_class))
        assert not [job_id for job_id, job in self._model.items() for shard in job.shards if shard.due]
        assert self._run(self._ledger.reconcile(MODEL)) == expected

    @rule()
    def expire(self) -> None:
        overdue = [job for job in self._model.values() if job.unfinished and job.overdue]
        for job in overdue:
            job.end(JobStatus.EXPIRED)
        assert self._run(self._ledger.expire(MODEL)) == len(overdue)

    @invariant()
    def invariants_hold(self) -> None:
        existing = [job_id for job_id, job in self._model.items() if job.status is not None]
        with self._client.pipeline(transaction=False) as pipe:
            for job_id in existing:
                for name in (job_keys.job(job_id), job_keys.shards(job_id), job_keys.results(job_id)):
                    pipe.hgetall(name)
                for number in range(len(self._model[job_id].shards)):
                    pipe.exists(job_keys.lease(job_id, number))
            pipe.zrange(pool_keys.outstanding(MODEL), 0, -1, withscores=True)
            pipe.zrange(pool_keys.deadlines(MODEL), 0, -1)
            replies = iter(pipe.execute())
        for job_id in existing:
            job = self._model[job_id]
            record, shards, results = (next(replies) for _ in range(3))
            leases = [bool(next(replies)) for _ in job.shards]
            self._check_record(job, JobRecord.from_hash(job_id, record))
            self._check_results(job, results)
            self._check_shards(job, {name.decode(): value.decode() for name, value in shards.items()}, leases)
        self._check_outstanding({member.decode(): at_ms for member, at_ms in next(replies)})
        assert {job_id.decode() for job_id in next(replies)} == {
            job_id for job_id, job in self._model.items() if job.unfinished
        }
        assert [(entry["job"], entry["shard"]) for entry in self._store.dead_letters()] == self._dead_letters
        self._check_order()
        self._check_load()

    def _check_order(self) -> None:
        for work_class in WorkClass:
            jobs = [job for job in self._unfinished_jobs() if job.record.work_class is work_class]
            members = self._client.zrange(pool_keys.order(MODEL, work_class, OWNER), 0, -1)
            assert {member.decode() for member in members} == {
                f"{job.record.id}/{number}" for job in jobs for number in self._ordered(job)
            }
            if members:
                assert self._client.zscore(pool_keys.turns(MODEL, work_class), OWNER) is not None

    @staticmethod
    def _check_record(job: Job, record: JobRecord) -> None:
        assert record.status is job.status
        assert record.shards_left == sum(shard.status != "done" for shard in job.shards)
        assert bool(record.finished_ms) == record.status.final
        assert (record.failure is not None) == (record.status is JobStatus.FAILED)

    @staticmethod
    def _check_results(job: Job, results: dict[bytes, bytes]) -> None:
        """The store has the accepted scores, and has all scores exactly when the job succeeded."""
        scores = {int(number): decode_scores(payload).scores for number, payload in results.items()}
        accepted = {number: [shard.accepted] for number, shard in enumerate(job.shards) if shard.accepted is not None}
        assert scores == accepted
        assert (len(accepted) == len(job.shards)) == (job.status is SUCCEEDED)

    @staticmethod
    def _check_shards(job: Job, fields: dict[str, str], leases: list[bool]) -> None:
        for number, shard in enumerate(job.shards):
            assert leases[number] == shard.has_lease
            assert fields.get(f"{number}:finishes_accepted") == (None if shard.accepted is None else "1")
            if job.unfinished:
                assert fields[f"{number}:status"] == shard.status
                assert int(fields.get(f"{number}:crashes", "0")) == shard.crashes
                assert int(fields.get(f"{number}:retries", "0")) == shard.retries

    def _check_outstanding(self, outstanding: dict[str, float]) -> None:
        """The unfinished shards of unfinished jobs are outstanding; the reconciler checks each such job soon."""
        soon = self._store.now_ms() + 3_600_000
        expected = set()
        for job_id, job in self._model.items():
            if job.unfinished:
                members = {f"{job_id}/{number}": shard for number, shard in enumerate(job.shards)}
                expected |= {member for member, shard in members.items() if shard.status != "done"}
                checked = {member for member, shard in members.items() if shard.status in ("queued", "leased")}
                assert checked
                assert all(outstanding[member] < soon for member in checked)
        assert set(outstanding) == expected

    def _check_load(self) -> None:
        signals = read_signals_blocking(self._client, [MODEL], 0.0)[MODEL]
        loads = {WorkClass.INTERACTIVE: signals.interactive, WorkClass.BATCH: signals.batch}
        assert loads == {work_class: self._expected_load(work_class) for work_class in WorkClass}
        assert signals.shards == sum(shard.status != "done" for job in self._unfinished_jobs() for shard in job.shards)
        for work_class, load in loads.items():
            tokens = load.queued_tokens + load.running_tokens
            backlog = {OWNER.encode(): str(tokens).encode()} if tokens else {}
            assert self._client.hgetall(pool_keys.backlog(MODEL, work_class)) == backlog
        if not self._unfinished_jobs():
            assert set(self._client.hgetall(pool_keys.load(MODEL))) <= {b"ended_ms"}

    def _expected_load(self, work_class: WorkClass) -> ClassLoad:
        jobs = [job for job in self._unfinished_jobs() if job.record.work_class is work_class]
        sizes: dict[bool, list[ShardSize]] = {False: [], True: []}
        for job in jobs:
            submitted = make_submission(shards=len(job.shards)).sizes
            for shard, size in zip(job.shards, submitted, strict=True):
                if shard.status != "done":
                    sizes[shard.status == "leased"].append(size)
        return ClassLoad(
            jobs=len(jobs),
            queued_pairs=sum(size.pairs for size in sizes[False]),
            queued_tokens=sum(size.tokens for size in sizes[False]),
            running_pairs=sum(size.pairs for size in sizes[True]),
            running_tokens=sum(size.tokens for size in sizes[True]),
            running_jobs=sum(job.status is RUNNING for job in jobs),
        )

    def _unfinished_jobs(self) -> list[Job]:
        return [job for job in self._model.values() if job.unfinished]


def test_invariants_hold_after_any_sequence_of_operations(
    redis_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared.ledger.job_ledger, "MAX_CRASHES", MAX_CRASHES)
    monkeypatch.setattr(shared.ledger.worker_ledger, "MAX_TRANSIENT_ERRORS", MAX_TRANSIENT_ERRORS)
    with asyncio.Runner() as runner:
        client = connect_async(redis_url)
        ledger = JobLedger(client, LIFETIMES)

        class Machine(LedgerMachine):
            def __init__(self) -> None:
                super().__init__(runner, ledger, redis_client)

        try:
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=80,
                    stateful_step_count=40,
                    deadline=None,
                    derandomize=True,
                    suppress_health_check=[HealthCheck.too_slow],
                ),
            )
        finally:
            runner.run(client.aclose())
