import json

import pytest

from api.http.error_responses import status_of, superset_body
from client import errors
from shared import errors as service
from shared.errors import RerankqError


def error_classes(kind: type[RerankqError] = RerankqError) -> list[type[RerankqError]]:
    return [kind, *(each for below in kind.__subclasses__() for each in error_classes(below))]


def test_every_error_code_of_the_service_has_a_class() -> None:
    codes = {kind.code for kind in error_classes() if kind.code not in ("error", "configuration", "method_not_allowed")}
    assert codes - set(errors._BY_CODE) == set()


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (service.InvalidRequest("no query", param="query"), errors.InvalidRequest),
        (service.Unauthorized("no key"), errors.Unauthorized),
        (service.ModelNotFound("no model"), errors.ModelNotFound),
        (service.JobNotFound("no job"), errors.JobNotFound),
        (service.JobCanceled("canceled"), errors.JobCanceled),
        (service.StoreUnavailable("unreachable", retry_after=2), errors.Unavailable),
    ],
)
def test_error_has_the_fields_of_the_response(raised: RerankqError, expected: type[errors.RerankError]) -> None:
    body = json.dumps(superset_body(raised)).encode()
    error = errors.error_of(status_of(raised), {"retry-after": "2", "x-request-id": "mine"}, body)
    assert type(error) is expected
    assert (error.message, error.code, error.param) == (raised.message, raised.code, raised.param)
    assert (error.status, error.retry_after, error.request_id) == (status_of(raised), 2.0, "mine")


def test_wait_timed_out_has_the_job_id() -> None:
    body = json.dumps({"error": {"type": "wait_timed_out", "message": "no result"}}).encode()
    error = errors.error_of(504, {"location": "/v1/jobs/job-7"}, body)
    assert isinstance(error, errors.WaitTimedOut)
    assert error.job_id == "job-7"


@pytest.mark.parametrize(
    ("status", "body", "expected", "message"),
    [
        (502, b"<html>Bad Gateway</html>", errors.Unavailable, "<html>Bad Gateway</html>"),
        (503, b"", errors.Unavailable, "HTTP status 503"),
        (429, b'{"detail": "slow down"}', errors.Overloaded, "slow down"),
        (401, b'{"error": "no key", "error_type": "Unauthorized"}', errors.Unauthorized, "no key"),
        (418, b"[1]", errors.RequestError, "[1]"),
        (507, b"\xff", errors.ServiceError, "\ufffd"),
    ],
)
def test_error_response_of_a_proxy_is_an_error(
    status: int, body: bytes, expected: type[errors.RerankError], message: str
) -> None:
    error = errors.error_of(status, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, body)
    assert type(error) is expected
    assert (error.message, error.retry_after) == (message, None)
