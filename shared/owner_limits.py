"""What an owner (an API key) may use: its limits and its weight. Checked by the ledger when it accepts a job."""

import math
from dataclasses import dataclass

from shared.errors import RateLimited

_RETRY_AFTER_SECONDS = 2
"""When an owner's pending work is too much: it may end at any time."""
_FIELDS = {
    "requests": "requests_per_second",
    "pairs": "pairs_per_minute",
    "tokens": "pending_tokens",
    "jobs": "unfinished_jobs",
}
"""The fields of OwnerLimits by the names that submit.lua returns."""


@dataclass(frozen=True, slots=True)
class OwnerLimits:
    """The limits of one owner; None: no limit.

    `pending_tokens` (estimated) and `unfinished_jobs` count for each model. The rates may be used in a burst.
    """

    requests_per_second: float | None = None
    pairs_per_minute: int | None = None
    pending_tokens: int | None = None
    unfinished_jobs: int | None = None

    def error(self, exceeded: str, milliseconds: int) -> RateLimited:
        """The error for a job that exceeds a limit, as submit.lua names it; `milliseconds`: when to try again."""
        name = _FIELDS[exceeded]
        value = float(getattr(self, name))
        seconds = max(1, math.ceil(milliseconds / 1000)) if milliseconds else _RETRY_AFTER_SECONDS
        message = f"this API key has exceeded its limit: {name} is {value:g}"
        policy = {
            "requests": f'"requests";{_per_second(value)}',
            "pairs": f'"pairs";q={value:.0f};w=60',
            "tokens": f'"pending-tokens";q={value:.0f}',
            "jobs": f'"unfinished-jobs";q={value:.0f}',
        }[exceeded]
        return RateLimited(message, policy=policy, retry_after=seconds)


@dataclass(frozen=True, slots=True)
class OwnerTerms:
    """An owner's `weight` is its share of a busy model, relative to other owners."""

    weight: float = 1.0
    limits: OwnerLimits = OwnerLimits()


DEFAULT_TERMS = OwnerTerms()


def _per_second(rate: float) -> str:
    """A quota and its window in seconds, both whole numbers as RateLimit-Policy requires."""
    if rate < 1:
        return f"q=1;w={round(1 / rate)}"
    return f"q={rate:.0f};w=1" if rate.is_integer() else f"q={rate * 10:.0f};w=10"
