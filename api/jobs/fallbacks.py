"""Tries a request's models in order: the next one when a model is unknown, unavailable, overloaded or fails.

Also when a text is too long for a model and the request forbids truncation.

The job of each model gets its own idempotency key, derived from the client's. A repeated request finds the same jobs.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shared.contracts import RerankRequest
from shared.errors import ModelNotFound, ModelUnavailable, Overloaded, RerankqError, ScoringFailed, TextTooLong

T = TypeVar("T")

Attempt = Callable[[RerankRequest, str | None, float | None], Awaitable[T]]
"""Tries one model: takes the request, its Idempotency-Key and the time limit in seconds (None: the server's limit)."""


async def try_models(
    request: RerankRequest, attempt: Attempt[T], *, idempotency: str | None = None, seconds: float | None = None
) -> T:
    """Return the result of the first model that succeeds. `seconds` limits all attempts together.

    When every model fails, raises the error of the first one.
    """
    if not request.fallbacks:
        return await attempt(request, idempotency, seconds)
    loop = asyncio.get_running_loop()
    started = loop.time()
    first_error: RerankqError | None = None
    for position, model in enumerate([request.model, *request.fallbacks]):
        single_model = request.model_copy(update={"model": model, "fallbacks": []})
        remaining = None if seconds is None else max(0.0, seconds - (loop.time() - started))
        try:
            return await attempt(single_model, _idempotency_key(idempotency, position), remaining)
        except (ModelNotFound, ModelUnavailable, Overloaded, ScoringFailed, TextTooLong) as error:
            # TextTooLong: another model may have a higher limit.
            first_error = first_error or error
    assert first_error is not None
    raise first_error


def _idempotency_key(idempotency: str | None, position: int) -> str | None:
    # A header cannot contain a line break, so no client can send this key.
    return idempotency if idempotency is None or position == 0 else f"{idempotency}\n{position}"
