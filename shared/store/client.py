"""Connections to Redis, with every timeout said aloud.

redis-py's own defaults retry ten times behind five-second timeouts: a caller would wait close to a minute for a
Redis that is gone. Here a command fails within seconds and the caller decides.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError
from redis.retry import Retry

from shared.errors import StoreDamaged, StoreUnavailable

logger = logging.getLogger(__name__)

SOCKET_TIMEOUT_SECONDS = 5.0
CONNECT_TIMEOUT_SECONDS = 2.0
HEALTH_CHECK_SECONDS = 15
RETRY_AFTER_SECONDS = 2

_DAMAGED = re.compile(r"WRONGTYPE|user_script|running script|is not (an integer|a float|a valid)")
_REFUSED = re.compile(r"OOM|READONLY|MISCONF|NOREPLICAS|NOPERM|read only replica|used memory|Script killed")
"""What Redis says of itself, and not of what it holds, has this in the middle when it is a script that meets it."""
_FULL = re.compile(r"OOM|used memory")

_COMMON: dict[str, Any] = {
    "socket_timeout": SOCKET_TIMEOUT_SECONDS,
    "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "socket_keepalive": True,
    "health_check_interval": HEALTH_CHECK_SECONDS,
    # A pooled connection may have been closed while it idled: one quick second try, on a fresh one. Every ledger
    # script is safe to repeat.
    "retry_on_error": [RedisConnectionError],
}


def connect_async(url: str) -> redis.asyncio.Redis:
    """A pooled asyncio client of bytes; connects on first use."""
    client = redis.asyncio.Redis.from_url(url, retry=AsyncRetry(ConstantBackoff(0.05), 1), **_COMMON)
    pool = client.connection_pool
    pool.connection_class = type("Connection", (_ReconnectWhenClosed, pool.connection_class), {})
    return client


class _ReconnectWhenClosed:
    """Mixed into a connection: writing to a transport that was reset is a lost connection, which is tried again.

    uvloop raises a RuntimeError there, where asyncio raises nothing, and redis-py knows neither.
    """

    async def send_packed_command(self, *args: Any, **options: Any) -> None:
        try:
            await super().send_packed_command(*args, **options)  # type: ignore[misc]
        except RuntimeError as error:
            raise RedisConnectionError(str(error)) from error


def connect(url: str) -> redis.Redis:
    """A pooled, thread-safe blocking client of bytes; connects on first use."""
    return redis.Redis.from_url(url, retry=Retry(ConstantBackoff(0.05), 1), **_COMMON)


def require_certificates(url: str) -> str:
    """The URL, saying that the server's certificate is checked where it says nothing of it.

    redis-py checks by itself. kombu, given the same URL, does not: it would send the password to whoever answers.
    """
    parts = urlsplit(url)
    if parts.scheme != "rediss" or "ssl_cert_reqs" in parse_qs(parts.query):
        return url
    return f"{url}{'&' if parts.query else '?'}ssl_cert_reqs=required"


def is_damage(error: BaseException) -> bool:
    """Whether Redis answered that what it holds is not of the kind asked for: an outage passes, this does not."""
    # What Redis says of itself outside of a script has a class of its own.
    text = str(error)
    return type(error) is ResponseError and bool(_DAMAGED.search(text)) and not _REFUSED.search(text)


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn what Redis raises inside the block, awaited or not, into StoreUnavailable or StoreDamaged."""
    try:
        yield
    except (RedisError, OSError) as error:
        if is_damage(error):
            raise damaged(error) from error
        message = f"the job store {_reason(error)}; try again"
        raise StoreUnavailable(message, retry_after=RETRY_AFTER_SECONDS) from error


def damaged(cause: object) -> StoreDamaged:
    """The error that stands for it; `cause`, which goes to the log alone, must not hold what a caller wrote."""
    logger.error("what the job store holds cannot be used: %.300s", cause)
    return StoreDamaged("what the job store holds of this is damaged; send it again", retry_after=RETRY_AFTER_SECONDS)


def _reason(error: Exception) -> str:
    if isinstance(error, OutOfMemoryError) or _FULL.search(str(error)):
        return "is out of memory"
    if isinstance(error, ResponseError):
        return "takes nothing now"
    return "cannot be reached"
