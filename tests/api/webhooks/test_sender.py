"""Deliveries to receivers on loopback, which the rules of these tests allow."""

import asyncio
import socket
import ssl
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from api.webhooks.sender import SendOutcome, WebhookSender
from tests.api.webhooks.raw_receivers import (
    BODY,
    HEADERS,
    LIMITS,
    LOOPBACK,
    SECRET,
    SHORT,
    answer,
    deliver,
    opened,
    raw_receiver,
)
from tests.tls import make_certificate


async def test_a_delivery_arrives_as_it_was_given() -> None:
    async with opened(WebhookSender(LOOPBACK, LIMITS)) as sender, raw_receiver() as receiver:
        outcome = await sender.post(f"http://127.0.0.1:{receiver.port}/hook?key=1", HEADERS, BODY)
    assert outcome == SendOutcome(204, None, outcome.seconds, None)
    assert outcome.delivered
    assert 0 < outcome.seconds < LIMITS.seconds
    head, _, body = receiver.requests[0].partition(b"\r\n\r\n")
    assert body == BODY
    assert head.decode().lower().split("\r\n") == [
        "post /hook?key=1 http/1.1",
        f"host: 127.0.0.1:{receiver.port}",
        "connection: close",
        "content-type: application/json",
        "webhook-id: msg_1",
        f"webhook-signature: {SECRET.lower()}",
        f"content-length: {len(BODY)}",
    ]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return make_certificate(tmp_path)


def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


async def test_https_names_the_host_of_the_url_and_verifies_its_certificate(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    sender = WebhookSender(LOOPBACK, LIMITS, resolver=resolve)
    async with opened(sender), raw_receiver(tls=server_tls(certificate)) as receiver:
        outcome = await sender.post(f"https://localhost:{receiver.port}/", HEADERS, BODY)
        assert outcome.delivered, outcome
        assert receiver.server_names == ["localhost"]
        assert f"Host: localhost:{receiver.port}".encode() in receiver.requests[0]
        other = await sender.post(f"https://hooks.example.com:{receiver.port}/", HEADERS, BODY)
    assert other.status is None
    assert str(other.error).startswith("the receiver's TLS certificate is not valid: Hostname mismatch")
    assert len(receiver.requests) == 1


async def test_an_unknown_authority_is_an_error(certificate: Path) -> None:
    sender = WebhookSender(LOOPBACK, LIMITS)
    async with opened(sender), raw_receiver(tls=server_tls(certificate)) as receiver:
        outcome = await sender.post(f"https://localhost:{receiver.port}/", HEADERS, BODY)
    assert outcome.error == "the receiver's TLS certificate is not valid: self-signed certificate"
    assert receiver.requests == []


async def test_https_to_a_receiver_without_tls_is_an_error() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server, opened(WebhookSender(LOOPBACK, LIMITS)) as sender:
        outcome = await sender.post(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/", HEADERS, BODY)
    assert outcome.error == "the TLS handshake failed"


async def test_a_receiver_that_does_not_finish_the_handshake_is_left() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        sender = WebhookSender(LOOPBACK, SHORT)
        outcome = await sender.post(f"https://127.0.0.1:{listener.getsockname()[1]}/", HEADERS, BODY)
    assert outcome.error == "the receiver did not answer within 0.4 s"


@pytest.mark.parametrize(
    ("status", "error", "delivered", "gone"),
    [
        (200, None, True, False),
        (202, None, True, False),
        (302, "the receiver answered 302; redirects are not followed", False, False),
        (404, "the receiver answered 404", False, False),
        (410, "the receiver answered 410", False, True),
        (500, "the receiver answered 500", False, False),
    ],
)
async def test_the_status_decides(status: int, error: str | None, delivered: bool, gone: bool) -> None:
    outcome = await deliver(answer(f"HTTP/1.1 {status} Word\nContent-Length: 2\n\nok"))
    assert (outcome.status, outcome.error, outcome.delivered, outcome.gone) == (status, error, delivered, gone)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 120 ", 120.0),
        ("86401", 86_400.0),
        ("9" * 5000, 86_400.0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0),
        ("Fri, 31 Dec 1999 23:59:59 -0000", 0.0),
        ("-1", None),
        ("1.5", None),
        ("²", None),
        ("soon", None),
        ("Fri, 99 Dec 1999 99:59:59 GMT", None),
        ("Fri, 31 Dec 99999999999 23:59:59 +99999999999999999999", None),
        ("", None),
    ],
)
async def test_retry_after_is_seconds_or_a_date_and_at_most_a_day(value: str, seconds: float | None) -> None:
    outcome = await deliver(answer(f"HTTP/1.1 503 Busy\nRetry-After: {value}\nContent-Length: 0\n\n"))
    assert outcome.retry_after == seconds


async def test_retry_after_may_be_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    outcome = await deliver(answer(f"HTTP/1.1 429 Wait\nRetry-After: {date}\nContent-Length: 0\n\n"))
    assert outcome.retry_after == pytest.approx(99, abs=2)


async def test_the_next_address_is_tried_when_the_first_refuses() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["::1", "127.0.0.3", "127.0.0.1"]

    async with opened(WebhookSender(LOOPBACK, LIMITS, resolver=resolve)) as sender, raw_receiver() as receiver:
        assert (await sender.post(f"http://hooks.internal:{receiver.port}/", HEADERS, BODY)).delivered


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_receiver() as proxy, raw_receiver() as receiver:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with opened(WebhookSender(LOOPBACK, LIMITS)) as sender:
            assert (await sender.post(f"http://127.0.0.1:{receiver.port}/", HEADERS, BODY)).delivered
        assert proxy.connections == 0


async def test_every_delivery_has_its_own_connection_and_no_cookies() -> None:
    async with (
        opened(WebhookSender(LOOPBACK, LIMITS)) as sender,
        raw_receiver(answer("HTTP/1.1 200 OK\nSet-Cookie: a=b\nContent-Length: 0\n\n")) as receiver,
    ):
        for _ in range(3):
            assert (await sender.post(f"http://127.0.0.1:{receiver.port}/", HEADERS, BODY)).delivered
    assert receiver.connections == 3
    assert not any(b"cookie" in request.lower() for request in receiver.requests)
