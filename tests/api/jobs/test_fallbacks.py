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
    WaitTimedOut,
)
from tests.shared.support import make_request

RequestSchema = tuple[str | None, str | None, float | None]


class Models:
    """Answers with the name of the model that was asked, or fails as that model does."""

    def __init__(self, **failures: RerankqError) -> None:
        self._failures = failures
        self.asked: list[RequestSchema] = []

    async def ask(self, request: RerankRequest, key: str | None, seconds: float | None) -> str:
        assert request.fallbacks == []
        self.asked.append((request.model, key, seconds))
        if (failure := self._failures.get(request.model or "")) is not None:
            raise failure
        return request.model or ""


FAILURES = [ModelNotFound("no a"), ModelUnavailable("a is down"), ScoringFailed("a broke")]


async def test_without_fallbacks_the_request_is_asked_as_it_is() -> None:
    models = Models()
    assert await try_models(make_request(model="a"), models.ask, idempotency="key", seconds=3) == "a"
    assert models.asked == [("a", "key", 3)]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.code)
async def test_the_next_one_is_asked_when_one_is_unknown_unavailable_or_fails(failure: RerankqError) -> None:
    models = Models(a=failure, b=ModelNotFound("no b"))
    assert await try_models(make_request(model="a", fallbacks=["b", "c", "d"]), models.ask) == "c"
    assert [name for name, _, _ in models.asked] == ["a", "b", "c"]


async def test_the_first_one_that_answers_is_the_last_one_asked() -> None:
    models = Models()
    assert await try_models(make_request(model="a", fallbacks=["b"]), models.ask) == "a"
    assert len(models.asked) == 1


async def test_the_default_model_has_fallbacks_too() -> None:
    models = Models()
    await try_models(make_request(fallbacks=["b"]), models.ask)
    assert models.asked[0][0] is None


async def test_when_none_answers_the_first_error_is_told() -> None:
    models = Models(a=ModelUnavailable("a is down"), b=ModelNotFound("no b"))
    with pytest.raises(ModelUnavailable, match="a is down"):
        await try_models(make_request(model="a", fallbacks=["b"]), models.ask)


@pytest.mark.parametrize(
    "failure",
    [
        InvalidRequest("no"),
        StoreUnavailable("away"),
        IdempotencyConflict("no"),
        WaitTimedOut("x", job_id="job-1", retry_after=1),
    ],
    ids=lambda failure: failure.code,
)
async def test_what_another_model_would_not_mend_is_told_at_once(failure: RerankqError) -> None:
    models = Models(a=failure)
    with pytest.raises(type(failure)):
        await try_models(make_request(model="a", fallbacks=["b"]), models.ask)
    assert len(models.asked) == 1


async def test_each_model_has_a_key_of_its_own_that_no_caller_can_send() -> None:
    models = Models(a=ModelNotFound("no a"), b=ModelNotFound("no b"))
    await try_models(make_request(model="a", fallbacks=["b", "c"]), models.ask, idempotency="key")
    assert [key for _, key, _ in models.asked] == ["key", "key\n1", "key\n2"]


async def test_all_of_them_share_the_callers_patience() -> None:
    models = Models(a=ModelNotFound("no a"))

    async def slow(request: RerankRequest, key: str | None, seconds: float | None) -> str:
        await asyncio.sleep(0.05)
        return await models.ask(request, key, seconds)

    await try_models(make_request(model="a", fallbacks=["b"]), slow, seconds=10)
    (_, _, first), (_, _, second) = models.asked
    assert first is not None
    assert second is not None
    assert first > second >= 9
