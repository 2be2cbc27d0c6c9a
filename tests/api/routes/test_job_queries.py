import pytest

from api.routes.job_queries import DEFAULT_LIMIT, PARAMETERS, read_query
from shared.errors import InvalidRequest
from shared.ledger.job_record import JobFilter, JobStatus, Position


def test_an_empty_query_is_the_first_page_of_all_jobs() -> None:
    assert read_query({}) == (JobFilter(), DEFAULT_LIMIT, None)


def test_every_parameter_is_read() -> None:
    query = {
        "status": "failed, running",
        "model": "m",
        "created_after": "1.5",
        "created_before": "2",
        "limit": "7",
        "after": "1000-job-1",
    }
    assert read_query(query) == (
        JobFilter((JobStatus.FAILED, JobStatus.RUNNING), "m", 1500, 2000),
        7,
        Position(1000, "job-1"),
    )
    assert set(query) == {parameter["name"] for parameter in PARAMETERS}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "done"),
        ("created_after", "yesterday"),
        ("created_after", "nan"),
        ("created_before", "-1"),
        ("created_before", "1e300"),
        ("limit", "0"),
        ("limit", "101"),
        ("limit", "ten"),
        ("limit", ""),
        ("limit", "9" * 400),
        ("after", ""),
        ("after", "job-1"),
    ],
)
def test_an_invalid_parameter_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_query({name: value})
    assert raised.value.param == name
