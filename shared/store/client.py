"""Redis connections with explicit timeouts, and how Redis's errors become errors of this project.

redis-py's defaults retry ten times with five-second timeouts: a caller would wait almost a minute for an unreachable
Redis. Here a command fails within seconds, and the caller decides what to do.
"""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ConstantBackoff
from redis.connection import HiredisRespSerializer
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError, OutOfMemoryError, RedisError, ResponseError
from redis.retry import Retry

from shared.errors import StoreDamaged, StoreUnavailable

logger = logging.getLogger(__name__)

SOCKET_TIMEOUT_SECONDS = 5.0
CONNECT_TIMEOUT_SECONDS = 2.0
HEALTH_CHECK_SECONDS = 15
RETRY_AFTER_SECONDS = 2

_DAMAGED = re.compile(r"WRONGTYPE|user_script|running script|is not (an integer|a float|a valid)")
_REFUSED = re.compile(r"OOM|READONLY|MISCONF|NOREPLICAS|NOPERM|read only replica|used memory|Script killed")
"""Redis refuses a command for its own reasons, not because of the data; scripts wrap these texts in others."""
_FULL = re.compile(r"OOM|used memory")

_COMMON: dict[str, Any] = {
    "socket_timeout": SOCKET_TIMEOUT_SECONDS,
    "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "socket_keepalive": True,
    "health_check_interval": HEALTH_CHECK_SECONDS,
    # A pooled connection may have been closed while it was idle: retry once on a new one. Every ledger script can be
    # repeated.
    "retry_on_error": [RedisConnectionError],
}


def connect_async(url: str, on_round_trip: Callable[[], None] = lambda: None) -> redis.asyncio.Redis:
    """A pooled asyncio client of bytes; connects on first use.

    `on_round_trip` is called for each command or pipeline that is sent.
    """
    pool = _WaitingPool.from_url(url, retry=AsyncRetry(ConstantBackoff(0.05), 1), **_COMMON)
    pool.connection_class = type(
        "Connection",
        (_ReconnectWhenClosed, _PackWithHiredis, pool.connection_class),
        {"on_round_trip": staticmethod(on_round_trip)},
    )
    return redis.asyncio.Redis.from_pool(pool)


class _WaitingPool(redis.asyncio.ConnectionPool):
    """A pool of up to 100 connections. When all are in use, callers wait; redis-py's own pool raises an error.

    redis-py's BlockingConnectionPool waits, too, but takes a lock and a timeout for every command.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def get_connection(self, *args: Any, **options: Any) -> Any:
        while True:
            if not self.can_get_connection():
                await self._wait_for_release()
            # Others may be faster.
            with suppress(MaxConnectionsError):
                return await super().get_connection(*args, **options)  # type: ignore[no-untyped-call]

    async def _wait_for_release(self) -> None:
        try:
            async with asyncio.timeout(SOCKET_TIMEOUT_SECONDS):
                while not self.can_get_connection():
                    await self._wait()
        except TimeoutError:
            raise RedisConnectionError("all connections are in use") from None

    async def release(self, connection: Any) -> None:
        await super().release(connection)
        self._wake_next()

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                # It was woken and cannot use the connection.
                self._wake_next()
            raise

    def _wake_next(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class _ReconnectWhenClosed:
    """Mixin for a connection: treats writing to a reset transport as a lost connection, which redis-py retries.

    Also counts what is written.

    uvloop raises RuntimeError in that case, which redis-py does not handle.
    """

    on_round_trip: Callable[[], None]

    async def send_packed_command(self, *args: Any, **options: Any) -> None:
        self.on_round_trip()
        try:
            await super().send_packed_command(*args, **options)  # type: ignore[misc]
        except RuntimeError as error:
            raise RedisConnectionError(str(error)) from error


class _PackWithHiredis:
    """Mixin for a connection: encodes commands in C, as redis-py's blocking connections do."""

    def pack_command(self, *args: Any) -> list[bytes]:
        packed: list[bytes] = _SERIALIZER.pack(*args)
        return packed

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        return [packed for command in commands for packed in _SERIALIZER.pack(*command)]


_SERIALIZER: Any = HiredisRespSerializer()


def connect(url: str) -> redis.Redis:
    """A pooled, thread-safe blocking client of bytes; connects on first use."""
    return redis.Redis.from_url(url, retry=Retry(ConstantBackoff(0.05), 1), **_COMMON)


def require_certificates(url: str) -> str:
    """The URL with certificate checks required, unless it sets `ssl_cert_reqs` itself.

    redis-py checks certificates by default. kombu does not, and would send the password to any server.
    """
    parts = urlsplit(url)
    if parts.scheme != "rediss" or "ssl_cert_reqs" in parse_qs(parts.query):
        return url
    return f"{url}{'&' if parts.query else '?'}ssl_cert_reqs=required"


def is_damage(error: BaseException) -> bool:
    """Whether the error means that the data has an unexpected type or content. Unlike an outage, this does not pass."""
    # Outside of scripts, redis-py raises subclasses for Redis's own refusals.
    text = str(error)
    return type(error) is ResponseError and bool(_DAMAGED.search(text)) and not _REFUSED.search(text)


@contextmanager
def store_errors() -> Iterator[None]:
    """Convert errors of Redis inside the block into StoreUnavailable or StoreDamaged."""
    try:
        yield
    except (RedisError, OSError) as error:
        if is_damage(error):
            raise damaged(error) from error
        message = f"the job store {_reason(error)}; try again"
        raise StoreUnavailable(message, retry_after=RETRY_AFTER_SECONDS) from error


def damaged(cause: object) -> StoreDamaged:
    """A StoreDamaged error. `cause` is only logged, and must not contain a caller's text."""
    logger.error("data in the job store is damaged", extra={"error": cause})
    return StoreDamaged("what the job store holds of this is damaged; send it again", retry_after=RETRY_AFTER_SECONDS)


def _reason(error: Exception) -> str:
    if isinstance(error, OutOfMemoryError) or _FULL.search(str(error)):
        return "is out of memory"
    if isinstance(error, ResponseError):
        return "takes nothing now"
    return "cannot be reached"
