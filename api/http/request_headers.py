"""Reads the request headers `Prefer` (RFC 7240) and `Idempotency-Key`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from starlette.requests import Request

from shared.errors import InvalidRequest

_MAX_IDEMPOTENCY_KEY = 255
_PREFERENCE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.?)*(?:"|$))+')
"""One preference with its parameters. A comma inside quotes does not end it. An unclosed quote extends to the end of
the header, so that the match needs no backtracking."""
_SECONDS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class WaitPreference:
    """How long the client waits for the result.

    `wait_seconds` None: up to the server's limit. `job_after`: after the wait, the client gets 202 with the job
    instead of a timeout error.
    """

    wait_seconds: int | None = None
    job_after: bool = False

    @property
    def applied(self) -> str | None:
        """The value of the `Preference-Applied` response header; None when the client gave no preference."""
        if not self.job_after:
            return None
        return f"wait={self.wait_seconds}" if self.wait_seconds else "respond-async"


def read_prefer_header(request: Request) -> WaitPreference:
    """Return the client's preference; the request may have several Prefer headers."""
    return parse_prefer_header(", ".join(request.headers.getlist("prefer")))


def parse_prefer_header(header: str | None) -> WaitPreference:
    """Parse a Prefer header, with several headers joined by commas. Malformed and unknown preferences are ignored.

    `respond-async, wait=N` waits up to N seconds for the result. The first of several waits counts.
    """
    respond_async = False
    wait: int | None = None
    for name, value in _split_preferences(header or ""):
        if name == "respond-async":
            respond_async = True
        elif name == "wait" and wait is None and _SECONDS.fullmatch(value):
            wait = int(value)
    if wait is not None:
        return WaitPreference(wait, job_after=True)
    return WaitPreference(0, job_after=True) if respond_async else WaitPreference()


def _split_preferences(header: str) -> Iterator[tuple[str, str]]:
    """Names in lower case, and values without quotes."""
    for preference in _PREFERENCE.findall(header):
        name, _, value = preference.partition(";")[0].partition("=")
        yield name.strip().lower(), value.strip().removeprefix('"').removesuffix('"')


def read_idempotency_key(request: Request) -> str | None:
    """Return the Idempotency-Key, None without one. Raises InvalidRequest when it is empty or too long."""
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= _MAX_IDEMPOTENCY_KEY:
        raise InvalidRequest(
            f"Idempotency-Key must have 1 to {_MAX_IDEMPOTENCY_KEY} characters", param="Idempotency-Key"
        )
    return key
