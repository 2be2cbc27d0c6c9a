"""Where the service is and how it is called: what both clients are told when they are made."""

import os
from dataclasses import dataclass

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT_SECONDS = 300.0
DEFAULT_RETRIES = 4


class BadAddress(ValueError):
    """No service can be at this address."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Read once, when a client is made."""

    url: str
    api_key: str | None
    timeout_seconds: float
    retries: int

    @classmethod
    def of(cls, url: str | None, api_key: str | None, timeout_seconds: float, retries: int) -> "ClientSettings":
        """What is None comes from RERANKQ_URL and RERANKQ_API_KEY. Raises BadAddress."""
        url = (url or os.environ.get("RERANKQ_URL") or DEFAULT_URL).rstrip("/")
        if not url.startswith(("http://", "https://")):
            raise BadAddress(f"the service's address must begin with http:// or https://, and is {url!r}")
        # People copy it from the settings of other clients.
        return cls(url.removesuffix("/v1"), api_key or os.environ.get("RERANKQ_API_KEY"), timeout_seconds, retries)

    @property
    def headers(self) -> dict[str, str]:
        """What every call has."""
        named = {"User-Agent": "rerankq-client"}
        return named | ({"Authorization": f"Bearer {self.api_key}"} if self.api_key else {})
