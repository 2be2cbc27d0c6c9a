"""Settings of both clients: the service's address, the API key, the timeout and the retries."""

import os
from dataclasses import dataclass

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT_SECONDS = 300.0
DEFAULT_RETRIES = 4


class BadAddress(ValueError):
    """The address is not an HTTP URL."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Read once, when a client is created."""

    url: str
    api_key: str | None
    timeout_seconds: float
    retries: int

    @classmethod
    def of(cls, url: str | None, api_key: str | None, timeout_seconds: float, retries: int) -> "ClientSettings":
        """Values of None are read from RERANKQ_URL and RERANKQ_API_KEY. Raises BadAddress."""
        url = (url or os.environ.get("RERANKQ_URL") or DEFAULT_URL).rstrip("/")
        if not url.startswith(("http://", "https://")):
            raise BadAddress(f"the service's address must start with http:// or https://, not {url!r}")
        # Other clients' base URLs include the version, and users copy them.
        return cls(url.removesuffix("/v1"), api_key or os.environ.get("RERANKQ_API_KEY"), timeout_seconds, retries)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every call."""
        named = {"User-Agent": "rerankq-client"}
        return named | ({"Authorization": f"Bearer {self.api_key}"} if self.api_key else {})
