import pytest

from shared import errors
from shared.errors import (
    ConfigurationError,
    JobError,
    RequestError,
    RerankqError,
    ServiceError,
    StoreUnavailable,
    WaitTimedOut,
)


def family(base: type[RerankqError]) -> list[type[RerankqError]]:
    return [kind for child in base.__subclasses__() for kind in (child, *family(child))]


GROUPS: list[type[RerankqError]] = [RequestError, JobError, ServiceError]
LEAVES = [kind for kind in family(RerankqError) if kind not in GROUPS]


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in LEAVES]
    assert len(set(codes)) == len(codes)
    assert RerankqError.code not in codes


def test_the_tree_in_the_docstring_has_every_error() -> None:
    tree = errors.__doc__ or ""
    assert [kind.__name__ for kind in (*GROUPS, *LEAVES) if f" {kind.__name__}" not in tree] == []


@pytest.mark.parametrize("kind", [*GROUPS, ConfigurationError])
def test_an_error_reads_as_its_message_and_names_the_field(kind: type[RerankqError]) -> None:
    error = kind("top_n must be at least 1", param="top_n")
    assert str(error) == error.message == "top_n must be at least 1"
    assert error.param == "top_n"
    assert kind("one sentence").param is None


def test_an_error_of_the_service_may_know_when_to_try_again() -> None:
    assert StoreUnavailable("away", retry_after=2).retry_after == 2
    assert StoreUnavailable("away").retry_after is None


def test_a_wait_that_ended_names_the_job_that_goes_on() -> None:
    error = WaitTimedOut("no result yet", job_id="job-1", retry_after=1)
    assert (error.job_id, error.retry_after) == ("job-1", 1)
