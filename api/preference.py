"""The `Prefer` header of RFC 7240: whether the caller waits for the result, and how long."""

import re
from dataclasses import dataclass

_TOKEN = re.compile(r'\s*([A-Za-z-]+)\s*(?:=\s*"?([^";,]*)"?)?[^,]*(?:,|$)')


@dataclass(frozen=True, slots=True)
class Preference:
    """`wait_seconds` None: as long as the server allows. `job_after`: a job rather than an error past the wait."""

    wait_seconds: float | None = None
    job_after: bool = False

    @property
    def applied(self) -> str | None:
        """What `Preference-Applied` says, None when no preference was given."""
        if not self.job_after:
            return None
        return f"wait={self.wait_seconds:g}" if self.wait_seconds else "respond-async"


def parse_preference(header: str | None) -> Preference:
    """Read a Prefer header. What is malformed or unknown is ignored, as the RFC wants.

    `respond-async, wait=N` waits N seconds for the result before it answers with a job.
    """
    respond_async = False
    wait: float | None = None
    for name, value in _TOKEN.findall(header or ""):
        if name.lower() == "respond-async":
            respond_async = True
        elif name.lower() == "wait" and wait is None and value.strip().isdigit():
            wait = float(value)
    if wait is not None:
        return Preference(wait, job_after=True)
    return Preference(0.0, job_after=True) if respond_async else Preference()
