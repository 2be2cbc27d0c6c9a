import pytest

from shared.contracts import WorkClass
from shared.ledger.job_record import JobFailure, JobRecord, JobStatus, new_job_id

FIELDS = {
    b"status": b"running",
    b"model": b"m",
    b"dialect": b"superset",
    b"owner": b"",
    b"class": b"batch",
    b"pairs": b"3",
    b"pairs_known": b"1",
    b"pairs_scored": b"1",
    b"shards": b"2",
    b"shards_left": b"1",
    b"created_ms": b"1700000000000",
    b"started_ms": b"1700000000500",
    b"deadline_ms": b"0",
}


def test_record_is_built_from_a_hash() -> None:
    assert JobRecord.from_hash("job-1", FIELDS) == JobRecord(
        id="job-1",
        status=JobStatus.RUNNING,
        model="m",
        dialect="superset",
        owner="",
        work_class=WorkClass.BATCH,
        pairs=3,
        pairs_known=1,
        pairs_scored=1,
        shards=2,
        shards_left=1,
        created_ms=1_700_000_000_000,
        started_ms=1_700_000_000_500,
        finished_ms=0,
        deadline_ms=0,
        failure=None,
    )


def test_failure_is_decoded_from_its_json() -> None:
    failure = JobFailure("scoring_failed", 'the engine said "no": ü')
    fields = FIELDS | {b"status": b"failed", b"failure": failure.to_json().encode()}
    assert JobRecord.from_hash("job-1", fields).failure == failure


@pytest.mark.parametrize("missing", [b"status", b"model", b"dialect", b"owner", b"class"])
def test_hash_without_a_required_field_is_rejected(missing: bytes) -> None:
    fields = {name: value for name, value in FIELDS.items() if name != missing}
    with pytest.raises(KeyError):
        JobRecord.from_hash("job-1", fields)


def test_four_statuses_are_final() -> None:
    assert [status for status in JobStatus if status.final] == [
        JobStatus.SUCCEEDED,
        JobStatus.FAILED,
        JobStatus.CANCELED,
        JobStatus.EXPIRED,
    ]


def test_job_ids_are_unique_and_random() -> None:
    ids = {new_job_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(job_id) == len("job-") + 32 and job_id.startswith("job-") for job_id in ids)
