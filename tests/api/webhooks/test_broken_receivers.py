"""Receivers that are slow, broken or hostile, on loopback, which the rules of these tests allow."""

import asyncio
import socket
import time
from contextlib import closing

import pytest

from api.webhooks.addresses import AddressRules
from api.webhooks.sender import SenderLimits, SendOutcome, WebhookSender
from tests.api.webhooks.raw_receivers import (
    BODY,
    HEADERS,
    LIMITS,
    LOOPBACK,
    OK,
    SHORT,
    Behavior,
    answer,
    answer_then_repeat,
    deliver,
    eventually,
    hang,
    opened,
    raw_receiver,
)


async def test_a_receiver_that_answers_nothing_is_left_in_time() -> None:
    outcome = await deliver(hang, SHORT)
    assert outcome.error == "the receiver did not answer within 0.4 s"
    assert 0.4 <= outcome.seconds < 5


async def test_a_tls_handshake_that_hangs_is_left_in_time_and_its_connection_closed() -> None:
    async with opened(WebhookSender(LOOPBACK, SHORT)) as sender, raw_receiver() as receiver:
        outcome = await sender.post(f"https://127.0.0.1:{receiver.port}/hook", HEADERS, BODY)
        await eventually(lambda: receiver.closed == receiver.connections == 1)
    assert outcome.error == "the receiver did not answer within 0.4 s"


@pytest.mark.parametrize(
    "behavior",
    [
        answer_then_repeat("HTTP/1.1 ", "2", pause=0.01),
        answer_then_repeat("HTTP/1.1 200 OK\n", "A", pause=0.01),
        answer_then_repeat("", "HTTP/1.1 100 Continue\n\n", pause=0.001),
    ],
    ids=["status", "headers", "informational"],
)
async def test_an_answer_in_tiny_pieces_is_cut_off_in_time(behavior: Behavior) -> None:
    outcome = await deliver(behavior, SHORT)
    assert outcome.status is None
    assert outcome.error == "the receiver did not answer within 0.4 s"


async def test_endless_headers_are_refused() -> None:
    outcome = await deliver(answer_then_repeat("HTTP/1.1 200 OK\n", f"X-Filler: {'a' * 1000}\n"))
    assert outcome.status is None
    assert outcome.error == "the receiver closed the connection, or its answer is not valid HTTP/1.1"
    assert outcome.seconds < LIMITS.seconds


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize(
    ("framing", "repeated"),
    [
        ("", "a" * 4096),
        ("Transfer-Encoding: chunked\n", f"1000\n{'a' * 4096}\n"),
        ("Content-Length: 99999999999\n", "a" * 4096),
    ],
)
async def test_only_the_start_of_an_endless_body_is_read(status: int, framing: str, repeated: str) -> None:
    outcome = await deliver(
        answer_then_repeat(f"HTTP/1.1 {status} OK\n{framing}\n", repeated), SenderLimits(seconds=60)
    )
    assert outcome.status == status
    assert outcome.delivered == (status == 200)
    assert outcome.seconds < 20


async def test_a_slow_body_does_not_change_the_status() -> None:
    outcome = await deliver(answer_then_repeat("HTTP/1.1 200 OK\n\n", "a", pause=0.01), SHORT)
    assert outcome.delivered
    assert outcome.error is None
    assert 0.4 <= outcome.seconds < 5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SSH-2.0-OpenSSH_9.6\n",
        "HTTP/1.1 200 OK\nBroken header\n\n",
        "HTTP/1.1 200",
        "HTTP/1.1 999999 OK\n\n",
        "<html></html>",
    ],
)
async def test_what_is_not_http_is_an_error(text: str) -> None:
    outcome = await deliver(answer(text))
    assert outcome.status is None
    assert outcome.error == "the receiver closed the connection, or its answer is not valid HTTP/1.1"


async def test_a_reset_connection_is_an_error() -> None:
    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        linger_off = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_off)

    assert (await deliver(reset)).error == "the connection was lost"


async def test_a_closed_port_is_an_error() -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        sender = WebhookSender(LOOPBACK, LIMITS)
        outcome = await sender.post(f"http://127.0.0.1:{unused.getsockname()[1]}/", HEADERS, BODY)
    assert outcome.error == "the connection was refused"


@pytest.mark.parametrize("error", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")])
async def test_a_name_that_does_not_exist_is_an_error(error: Exception) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise error

    sender = WebhookSender(LOOPBACK, LIMITS, resolver=resolve)
    outcome = await sender.post("https://hooks.example.com/", HEADERS, BODY)
    assert outcome == SendOutcome(None, "the host name could not be resolved", outcome.seconds, None)


async def test_a_name_server_that_hangs_costs_no_more_than_the_limit() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        return ["127.0.0.1"]

    sender = WebhookSender(LOOPBACK, SHORT, resolver=resolve)
    outcome = await sender.post("https://hooks.example.com/", HEADERS, BODY)
    assert outcome.error == "the receiver did not answer within 0.4 s"


async def test_a_url_that_is_not_allowed_any_more_is_an_error() -> None:
    sender = WebhookSender(AddressRules(), LIMITS)
    outcome = await sender.post("http://10.0.0.1/", HEADERS, BODY)
    assert outcome == SendOutcome(None, "the URL must be an https URL", outcome.seconds, None)


async def test_hanging_receivers_do_not_delay_others() -> None:
    patient = WebhookSender(LOOPBACK, SenderLimits(seconds=20.0))
    async with raw_receiver(hang) as hanging, raw_receiver(OK) as quick:
        url = f"http://127.0.0.1:{hanging.port}/"
        tasks = [asyncio.create_task(patient.post(url, HEADERS, BODY)) for _ in range(100)]
        await eventually(lambda: len(hanging.requests) == 100)
        started = time.monotonic()
        assert (await patient.post(f"http://127.0.0.1:{quick.port}/", HEADERS, BODY)).delivered
        assert time.monotonic() - started < 2
        await patient.aclose()
        await eventually(lambda: hanging.closed == 100)
        outcomes = await asyncio.gather(*tasks)
    assert {outcome.status for outcome in outcomes} == {None}


async def test_a_canceled_delivery_closes_its_connection() -> None:
    patient = WebhookSender(LOOPBACK, SenderLimits(seconds=20.0))
    async with raw_receiver(hang) as receiver:
        task = asyncio.create_task(patient.post(f"http://127.0.0.1:{receiver.port}/", HEADERS, BODY))
        await eventually(lambda: len(receiver.requests) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: receiver.closed == 1)
