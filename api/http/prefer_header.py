"""The `Prefer` header of RFC 7240: whether the caller waits for the result, and how long."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_ITEM = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.?)*(?:"|$))+')
"""One preference with its parameters; a comma inside quotes does not end it. An open quote runs to the end, so that
no text is looked at twice."""
_SECONDS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class WaitPreference:
    """`wait_seconds` None: as long as the server allows. `job_after`: a job rather than an error past the wait."""

    wait_seconds: int | None = None
    job_after: bool = False

    @property
    def applied(self) -> str | None:
        """What `WaitPreference-Applied` says, None when no preference was given."""
        if not self.job_after:
            return None
        return f"wait={self.wait_seconds}" if self.wait_seconds else "respond-async"


def parse_prefer_header(header: str | None) -> WaitPreference:
    """Read a Prefer header; several lines of it are joined by commas. What is malformed or unknown is ignored.

    `respond-async, wait=N` waits N seconds for the result before it answers with a job. Of two waits the first holds.
    """
    respond_async = False
    wait: int | None = None
    for name, value in _preferences(header or ""):
        if name == "respond-async":
            respond_async = True
        elif name == "wait" and wait is None and _SECONDS.fullmatch(value):
            wait = int(value)
    if wait is not None:
        return WaitPreference(wait, job_after=True)
    return WaitPreference(0, job_after=True) if respond_async else WaitPreference()


def _preferences(header: str) -> Iterator[tuple[str, str]]:
    """Names in lower case, and values without their quotes."""
    for item in _ITEM.findall(header):
        name, _, value = item.partition(";")[0].partition("=")
        yield name.strip().lower(), value.strip().removeprefix('"').removesuffix('"')
