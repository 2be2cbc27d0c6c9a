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


def descendants(base: type[RerankqError]) -> list[type[RerankqError]]:
    return [kind for child in base.__subclasses__() for kind in (child, *descendants(child))]


GROUPS: list[type[RerankqError]] = [RequestError, JobError, ServiceError]
LEAVES = [kind for kind in descendants(RerankqError) if kind not in GROUPS]


def test_error_codes_are_unique() -> None:
    codes = [kind.code for kind in LEAVES]
    assert len(set(codes)) == len(codes)
    assert RerankqError.code not in codes


def test_docstring_lists_every_error() -> None:
    tree = errors.__doc__ or ""
    assert [kind.__name__ for kind in (*GROUPS, *LEAVES) if f" {kind.__name__}" not in tree] == []


@pytest.mark.parametrize("kind", [*GROUPS, ConfigurationError])
def test_error_has_a_message_and_a_param(kind: type[RerankqError]) -> None:
    error = kind("top_n must be at least 1", param="top_n")
    assert str(error) == error.message == "top_n must be at least 1"
    assert error.param == "top_n"
    assert kind("one sentence").param is None


def test_service_error_may_have_retry_after() -> None:
    assert StoreUnavailable("unreachable", retry_after=2).retry_after == 2
    assert StoreUnavailable("unreachable").retry_after is None


def test_wait_timed_out_has_the_job_id() -> None:
    error = WaitTimedOut("no result yet", job_id="job-1", retry_after=1)
    assert (error.job_id, error.retry_after) == ("job-1", 1)
