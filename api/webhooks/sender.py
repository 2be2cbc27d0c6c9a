"""Sends webhooks to receivers that may be slow, broken or hostile.

A sender connects only to addresses that its rules allow, follows no redirect, reads no proxy from the environment,
keeps no cookies, and spends a bounded time and memory on each answer. Every delivery has a connection of its own, so
that its address is checked each time, and a broken connection affects one delivery only.
"""

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpcore

from api.webhooks.addresses import AddressRules, check_url
from api.webhooks.connections import CannotConnect, CheckedBackend, Resolver, ThreadResolver
from shared.errors import InvalidRequest

MAX_RETRY_AFTER_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class SenderLimits:
    """`seconds`: for a whole delivery, from resolving the name to the end of the answer.

    `connect_seconds`: for opening a TCP connection to one address. `body_bytes`: how much of an answer's body is read.
    """

    seconds: float = 10.0
    connect_seconds: float = 4.0
    body_bytes: int = 64 * 1024


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """How a delivery ended. `status`: the HTTP status, None if none arrived. `error`: a sentence, None if delivered.

    `seconds`: how long it took. `retry_after`: the pause that the receiver asked for, in seconds, at most a day.
    """

    status: int | None
    error: str | None
    seconds: float
    retry_after: float | None

    @property
    def delivered(self) -> bool:
        """Whether the receiver accepted the delivery."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """Whether the receiver wants no more deliveries."""
        return self.status == 410


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    retry_after: float | None


class WebhookSender:
    """Sends deliveries, any number at once. Belongs to one event loop."""

    def __init__(
        self,
        rules: AddressRules,
        limits: SenderLimits = SenderLimits(),
        *,
        resolver: Resolver | None = None,
    ) -> None:
        """`resolver`: by default the system's. Trusts the system's authorities, `SSL_CERT_FILE` and certifi's."""
        self._rules = rules
        self._limits = limits
        self._own_resolver = ThreadResolver()
        self._trust = httpcore.default_ssl_context()
        self._pools = {
            scheme: self._open_pool(resolver or self._own_resolver, encrypted=scheme == "https")
            for scheme in ("https", "http")
        }

    def _open_pool(self, resolver: Resolver, *, encrypted: bool) -> httpcore.AsyncConnectionPool:
        return httpcore.AsyncConnectionPool(
            self._trust,
            max_connections=None,
            max_keepalive_connections=0,
            network_backend=CheckedBackend(
                self._rules, resolver, encrypted=encrypted, connect_seconds=self._limits.connect_seconds
            ),
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> SendOutcome:
        """Send one delivery. Raises nothing that the receiver, the network or the URL causes.

        The status decides. The body of the answer is read only so that the receiver can finish writing it. A body that
        is too long or too slow is cut off, and the status counts.
        """
        started = time.monotonic()
        answers: list[_Answer] = []
        error: str | None = None
        try:
            async with asyncio.timeout(self._limits.seconds):
                await self._exchange(url, headers, body, answers)
        except InvalidRequest as invalid:
            error = invalid.message
        except TimeoutError:
            error = f"the receiver did not answer within {self._limits.seconds:g} s"
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as failure:
            error = _describe_failure(failure)
        except OSError:  # a TLS error after the handshake
            error = "the connection was lost"
        seconds = time.monotonic() - started
        if not answers:
            return SendOutcome(None, error, seconds, None)
        [answer] = answers
        return SendOutcome(answer.status, _describe_status(answer.status), seconds, answer.retry_after)

    async def _exchange(self, url: str, headers: Mapping[str, str], body: bytes, answers: list[_Answer]) -> None:
        """Send the request, put the answer into `answers` as soon as its headers are there, and read its body."""
        parsed = check_url(url, self._rules, "the URL")
        lines = [("Host", parsed.authority), ("Connection", "close"), *headers.items()]
        target = httpcore.URL(scheme=parsed.scheme, host=parsed.host, port=parsed.port, target=parsed.target)
        async with self._pools[parsed.scheme].stream("POST", target, headers=lines, content=body) as response:
            answers.append(_Answer(response.status, _retry_after(response.headers)))
            left = self._limits.body_bytes
            async for chunk in response.aiter_stream():
                if (left := left - len(chunk)) <= 0:
                    break

    async def aclose(self) -> None:
        """Close the connections of deliveries that are still being sent."""
        for pool in self._pools.values():
            await pool.aclose()
        self._own_resolver.close()


def _describe_status(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"the receiver answered {status}; redirects are not followed"
    return f"the receiver answered {status}"


def _describe_failure(failure: Exception) -> str:
    if isinstance(failure, CannotConnect):
        return str(failure)
    if isinstance(failure, httpcore.ConnectError):
        # The TCP connection was open: see CheckedBackend.
        cause = failure.args[0] if failure.args else None
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the receiver's TLS certificate is not valid: {cause.verify_message}"
        return "the TLS handshake failed"
    if isinstance(failure, httpcore.ProtocolError):
        return "the receiver closed the connection, or its answer is not valid HTTP/1.1"
    return "the connection was lost"


def _retry_after(headers: list[tuple[bytes, bytes]]) -> float | None:
    """The pause in the header Retry-After, in seconds or as a date."""
    text = next((value.decode("latin-1").strip() for name, value in headers if name.lower() == b"retry-after"), "")
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_SECONDS)
    try:
        moment = parsedate_to_datetime(text)
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime.now(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(seconds.total_seconds(), 0.0), MAX_RETRY_AFTER_SECONDS)
