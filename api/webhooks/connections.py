"""Opens TCP connections to hosts whose addresses are allowed, and to exactly the addresses that were checked."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any

import httpcore

from api.webhooks.addresses import Address, AddressRules

Resolver = Callable[[str, int], Awaitable[list[str]]]
"""Resolves a host name and a port to addresses, in the order in which they should be tried. Raises OSError."""


class CannotConnect(httpcore.ConnectError):
    """The connection was not allowed, or failed. The message is a sentence for the receiver's owner."""


class ThreadResolver:
    """Resolves names with the system's resolver, on threads of its own.

    A name server that does not answer blocks a thread for up to half a minute. The event loop's own threads have other
    work to do.
    """

    def __init__(self, threads: int = 8) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="webhook-resolver")

    async def __call__(self, host: str, port: int) -> list[str]:
        """Resolve a name. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _resolve, host, port)
        return list(dict.fromkeys(found))

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _resolve(host: str, port: int) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects httpcore to allowed addresses only. Unix sockets are not supported.

    A name is resolved once for each connection, and the connection is opened to the addresses that were checked: no
    second lookup can return others. One forbidden address refuses the host, even if its other addresses are public. A
    public receiver has no private address, and skipping it would hide the mistake.
    """

    def __init__(self, rules: AddressRules, resolve: Resolver, *, encrypted: bool, connect_seconds: float) -> None:
        """`encrypted`: TLS follows, so that public addresses are allowed. `connect_seconds`: limit for one address."""
        self._rules = rules
        self._resolve = resolve
        self._encrypted = encrypted
        self._connect_seconds = connect_seconds
        self._tcp = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first of the host's addresses that accepts. Raises CannotConnect."""
        failure = ""
        for address in await self._checked_addresses(host, port):
            try:
                return _CheckedStream(await self._tcp.connect_tcp(str(address), port, self._connect_seconds))
            except httpcore.ConnectTimeout:
                failure = failure or "the connection was not accepted in time"
            except httpcore.ConnectError as error:
                failure = failure or _describe(error)
        raise CannotConnect(failure)

    async def _checked_addresses(self, host: str, port: int) -> list[Address]:
        try:
            addresses = [ip_address(text) for text in await self._resolve(host, port)]
        except (OSError, UnicodeError) as error:
            raise CannotConnect("the host name could not be resolved") from error
        if not addresses:
            raise CannotConnect("the host name could not be resolved")
        if not all(self._rules.allows(address, encrypted=self._encrypted) for address in addresses):
            # Without the address: it may be a name of the operator's own network.
            raise CannotConnect("the host has an address that webhooks may not reach")
        return addresses


class _CheckedStream(httpcore.AsyncNetworkStream):
    """A TCP connection that also closes when the TLS handshake is cancelled, which httpcore's own leaves open."""

    def __init__(self, tcp: httpcore.AsyncNetworkStream) -> None:
        self._tcp = tcp

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        return await self._tcp.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._tcp.write(buffer, timeout)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        try:
            return await self._tcp.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            await self._tcp.aclose()
            raise

    async def aclose(self) -> None:
        await self._tcp.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._tcp.get_extra_info(info)


def _describe(error: httpcore.ConnectError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionRefusedError):
            return "the connection was refused"
        cause = cause.__cause__
    return "the host could not be reached"
