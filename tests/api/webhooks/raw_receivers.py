"""Receivers of webhooks that write bytes as they like, so that tests can break every rule of HTTP."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_network

from api.webhooks.addresses import AddressRules
from api.webhooks.sender import SenderLimits, SendOutcome, WebhookSender

LOOPBACK = AddressRules((ip_network("127.0.0.0/8"), ip_network("::1")))
LIMITS = SenderLimits()
SHORT = SenderLimits(seconds=0.4, connect_seconds=0.3)
"""For receivers that do not answer in time."""
SECRET = "v1,c2lnbmF0dXJl"
HEADERS = {"content-type": "application/json", "webhook-id": "msg_1", "webhook-signature": SECRET}
BODY = b'{"type": "job.succeeded"}'

Behavior = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class RawReceiver:
    """`connections` counts those accepted, `closed` those that ended. `requests` has the bytes of each request."""

    behavior: Behavior
    port: int = 0
    connections: int = 0
    closed: int = 0
    requests: list[bytes] = field(default_factory=list)
    server_names: list[str | None] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request with a Content-Length, then let `behavior` answer."""
        self.connections += 1
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1])
                    for line in head.splitlines()
                    if line.lower().startswith(b"content-length:")
                )
                self.requests.append(head + await reader.readexactly(length))
                await self.behavior(reader, writer)
        finally:
            self.closed += 1
            writer.transport.abort()


def answer(text: str) -> Behavior:
    """A behavior: write an answer, given with plain line ends, and close the connection."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text.replace("\n", "\r\n").encode("latin-1"))
        await writer.drain()
        writer.close()

    return behave


def answer_then_repeat(start: str, repeated: str, pause: float = 0.0) -> Behavior:
    """A behavior: write `start`, then `repeated` until the connection closes, with pauses in seconds."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start.replace("\n", "\r\n").encode())
        while not writer.is_closing():
            writer.write(repeated.replace("\n", "\r\n").encode())
            await writer.drain()
            await asyncio.sleep(pause)

    return behave


async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """A behavior: answer nothing until the sender closes the connection."""
    await reader.read()


OK = answer("HTTP/1.1 204 No Content\n\n")


@asynccontextmanager
async def raw_receiver(
    behavior: Behavior = OK, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RawReceiver]:
    """Listen on loopback, and close every connection in the end."""
    receiver = RawReceiver(behavior)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(receiver.serve(reader, writer)))

    if tls is not None:
        tls.sni_callback = lambda _, name, __: receiver.server_names.append(name)
    server = await asyncio.start_server(accept, host, port, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until the condition is true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - of sockets, which set no event
            await asyncio.sleep(0.01)


@asynccontextmanager
async def opened(sender: WebhookSender) -> AsyncIterator[WebhookSender]:
    """Close a sender in the end."""
    try:
        yield sender
    finally:
        await sender.aclose()


async def deliver(behavior: Behavior, limits: SenderLimits = LIMITS) -> SendOutcome:
    """Deliver to a receiver with this behavior. The sender must close the connection, and show no header."""
    async with opened(WebhookSender(LOOPBACK, limits)) as sender, raw_receiver(behavior) as receiver:
        outcome = await sender.post(f"http://127.0.0.1:{receiver.port}/hook", HEADERS, BODY)
        await eventually(lambda: receiver.closed == receiver.connections == 1)
    assert SECRET not in str(outcome.error)
    return outcome
