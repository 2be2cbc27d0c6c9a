"""What an owner (an API key) may use: its limits and its weight. Checked by the ledger when it accepts a job."""

import math
from dataclasses import dataclass

from shared.errors import RateLimited

_RETRY_AFTER_SECONDS = 2
"""When an owner's pending work is too much: it may end at any time."""
_NAMES = {
    "requests": ("requests_per_second", "requests"),
    "pairs": ("pairs_per_minute", "pairs"),
    "tokens": ("pending_tokens", "pending-tokens"),
    "jobs": ("unfinished_jobs", "unfinished-jobs"),
    "batches": ("batch_tokens", "batch-tokens"),
}
"""For each limit that the scripts name: its field in OwnerLimits, and its name in RateLimit-Policy."""


@dataclass(frozen=True, slots=True)
class OwnerLimits:
    """The limits of one owner; None: no limit.

    `pending_tokens` (estimated) and `unfinished_jobs` count for each model. The rates may be used in a burst.
    `batch_tokens` (estimated) limits all unfinished batches together, whose lines do not count for the other limits.
    """

    requests_per_second: float | None = None
    pairs_per_minute: int | None = None
    pending_tokens: int | None = None
    unfinished_jobs: int | None = None
    batch_tokens: int | None = None

    @property
    def of_jobs(self) -> tuple[float | None, int | None, int | None, int | None]:
        """The limits that submit.lua checks, in the order of its arguments."""
        return self.requests_per_second, self.pairs_per_minute, self.pending_tokens, self.unfinished_jobs

    def error(self, exceeded: str, milliseconds: int) -> RateLimited:
        """The error for a job that exceeds a limit, as submit.lua names it; `milliseconds`: when to try again."""
        name, public_name = _NAMES[exceeded]
        value = float(getattr(self, name))
        seconds = max(1, math.ceil(milliseconds / 1000)) if milliseconds else _RETRY_AFTER_SECONDS
        message = f"this API key has exceeded its limit: {name} is {value:g}"
        policy = f'"{public_name}";{_quota(exceeded, value)}'
        return RateLimited(message, policy=policy, retry_after=seconds, reason=name)


@dataclass(frozen=True, slots=True)
class OwnerTerms:
    """An owner's `weight` is its share of a busy model, relative to other owners."""

    weight: float = 1.0
    limits: OwnerLimits = OwnerLimits()


DEFAULT_TERMS = OwnerTerms()


def _quota(exceeded: str, value: float) -> str:
    """The quota, and the window in seconds of a rate: whole numbers, as RateLimit-Policy requires."""
    if exceeded == "requests" and value < 1:
        return f"q=1;w={round(1 / value)}"
    if exceeded == "requests" and not value.is_integer():
        return f"q={value * 10:.0f};w=10"
    return f"q={value:.0f}" + {"requests": ";w=1", "pairs": ";w=60"}.get(exceeded, "")
