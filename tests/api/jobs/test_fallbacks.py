import asyncio

import pytest

from api.jobs.fallbacks import try_models
from shared.contracts import RerankRequest
from shared.errors import (
    IdempotencyConflict,
    InvalidRequest,
    ModelNotFound,
    ModelUnavailable,
    RerankqError,
    ScoringFailed,
    StoreUnavailable,
    TextTooLong,
    WaitTimedOut,
)
from tests.shared.support import make_request

Attempt = tuple[str | None, str | None, float | None]
"""The model, the Idempotency-Key and the time limit of an attempt."""


class Models:
    """Returns the name of the tried model, or raises its failure."""

    def __init__(self, **failures: RerankqError) -> None:
        self._failures = failures
        self.attempts: list[Attempt] = []

    async def attempt(self, request: RerankRequest, key: str | None, seconds: float | None) -> str:
        assert request.fallbacks == []
        self.attempts.append((request.model, key, seconds))
        if (failure := self._failures.get(request.model or "")) is not None:
            raise failure
        return request.model or ""


FAILURES = [
    ModelNotFound("no a"),
    ModelUnavailable("a is down"),
    ScoringFailed("a broke"),
    TextTooLong("too long for a"),
]


async def test_request_without_fallbacks_is_tried_unchanged() -> None:
    models = Models()
    assert await try_models(make_request(model="a"), models.attempt, idempotency="key", seconds=3) == "a"
    assert models.attempts == [("a", "key", 3)]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.code)
async def test_next_model_is_tried_when_one_is_unknown_unavailable_or_fails(failure: RerankqError) -> None:
    models = Models(a=failure, b=ModelNotFound("no b"))
    assert await try_models(make_request(model="a", fallbacks=["b", "c", "d"]), models.attempt) == "c"
    assert [name for name, _, _ in models.attempts] == ["a", "b", "c"]


async def test_no_model_is_tried_after_a_success() -> None:
    models = Models()
    assert await try_models(make_request(model="a", fallbacks=["b"]), models.attempt) == "a"
    assert len(models.attempts) == 1


async def test_default_model_may_have_fallbacks() -> None:
    models = Models()
    await try_models(make_request(fallbacks=["b"]), models.attempt)
    assert models.attempts[0][0] is None


async def test_first_error_is_raised_when_every_model_fails() -> None:
    models = Models(a=ModelUnavailable("a is down"), b=ModelNotFound("no b"))
    with pytest.raises(ModelUnavailable, match="a is down"):
        await try_models(make_request(model="a", fallbacks=["b"]), models.attempt)


@pytest.mark.parametrize(
    "failure",
    [
        InvalidRequest("no"),
        StoreUnavailable("unreachable"),
        IdempotencyConflict("no"),
        WaitTimedOut("x", job_id="job-1", retry_after=1),
    ],
    ids=lambda failure: failure.code,
)
async def test_other_errors_are_raised_at_once(failure: RerankqError) -> None:
    models = Models(a=failure)
    with pytest.raises(type(failure)):
        await try_models(make_request(model="a", fallbacks=["b"]), models.attempt)
    assert len(models.attempts) == 1


async def test_each_model_has_its_own_key_that_no_client_can_send() -> None:
    models = Models(a=ModelNotFound("no a"), b=ModelNotFound("no b"))
    await try_models(make_request(model="a", fallbacks=["b", "c"]), models.attempt, idempotency="key")
    assert [key for _, key, _ in models.attempts] == ["key", "key\n1", "key\n2"]


async def test_time_limit_covers_all_models() -> None:
    models = Models(a=ModelNotFound("no a"))

    async def slow(request: RerankRequest, key: str | None, seconds: float | None) -> str:
        await asyncio.sleep(0.05)
        return await models.attempt(request, key, seconds)

    await try_models(make_request(model="a", fallbacks=["b"]), slow, seconds=10)
    (_, _, first), (_, _, second) = models.attempts
    assert first is not None
    assert second is not None
    assert first > second >= 9
