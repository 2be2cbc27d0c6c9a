"""Models to try one after the other: the next one when one is not served, is not available or fails.

Each model's job has a key of its own made from the caller's, so that coming back finds the one that was taken.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shared.contracts import RerankRequest
from shared.errors import ModelNotFound, ModelUnavailable, RerankqError, ScoringFailed

T = TypeVar("T")

Attempt = Callable[[RerankRequest, str | None, float | None], Awaitable[T]]
"""Asks one model, under an Idempotency-Key, within so many seconds (None: as long as the server allows)."""


async def try_models(
    request: RerankRequest, attempt: Attempt[T], *, idempotency: str | None = None, seconds: float | None = None
) -> T:
    """What the first model answers that does, all of them within `seconds`. Raises what the first one raised."""
    if not request.fallbacks:
        return await attempt(request, idempotency, seconds)
    loop = asyncio.get_running_loop()
    started = loop.time()
    first_error: RerankqError | None = None
    for place, model in enumerate([request.model, *request.fallbacks]):
        alone = request.model_copy(update={"model": model, "fallbacks": []})
        left = None if seconds is None else max(0.0, seconds - (loop.time() - started))
        try:
            return await attempt(alone, _key(idempotency, place), left)
        except (ModelNotFound, ModelUnavailable, ScoringFailed) as error:
            first_error = first_error or error
    assert first_error is not None
    raise first_error


def _key(idempotency: str | None, place: int) -> str | None:
    # No header has a line break in it: nobody's own key looks like this.
    return idempotency if idempotency is None or place == 0 else f"{idempotency}\n{place}"
