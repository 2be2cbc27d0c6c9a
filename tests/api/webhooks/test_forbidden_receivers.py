"""Receivers on loopback and in private networks are not reached, whatever the URL, the name or the answer."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_network

import httpcore
import pytest

from api.webhooks.addresses import AddressRules
from api.webhooks.connections import CannotConnect, CheckedBackend, Resolver, ThreadResolver
from api.webhooks.sender import SenderLimits, WebhookSender
from tests.api.webhooks.raw_receivers import answer, raw_receiver

PUBLIC = AddressRules()
LIMITS = SenderLimits(seconds=2.0, connect_seconds=0.5)
FORBIDDEN = "the host has an address that webhooks may not reach"


class Inside:
    """A service that listens on loopback, in IPv4 and IPv6, and must not be reached."""

    def __init__(self) -> None:
        self._v4 = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._v4.getsockname()[1]
        self._listeners = [self._v4]
        if socket.has_dualstack_ipv6():
            self._listeners.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))

    def connections(self) -> int:
        """How many connections wait to be accepted."""
        return sum(self._accept(listener) for listener in self._listeners)

    def _accept(self, listener: socket.socket) -> int:
        listener.settimeout(0.05)
        count = 0
        while True:
            try:
                listener.accept()[0].close()
            except TimeoutError:
                return count
            count += 1

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()


@pytest.fixture
def inside() -> Iterator[Inside]:
    with closing(Inside()) as service:
        yield service


def resolves_to(*answers: list[str]) -> tuple[Resolver, list[str]]:
    """A resolver that gives these answers one after another and repeats the last; and the names it was asked for."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return resolve, asked


async def error_of(sender: WebhookSender, url: str) -> str | None:
    outcome = await sender.post(url, {"webhook-id": "msg_1"}, b"{}")
    assert outcome.status is None
    assert not outcome.delivered
    return outcome.error


async def test_a_connection_would_be_noticed(inside: Inside) -> None:
    """The counterpart of the tests below: with rules that allow loopback, the same requests connect."""
    sender = WebhookSender(AddressRules((ip_network("127.0.0.0/8"), ip_network("::1"))), LIMITS)
    for host in ("127.0.0.1", "0x7f.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "localhost"):
        await error_of(WebhookSender(sender._rules, SenderLimits(seconds=0.2)), f"https://{host}:{inside.port}/")
        assert inside.connections() == 1, host


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "0177.1", "0x7f000001", "2130706433", "0", "localhost", "[::1]", "[::]", "[::ffff:7f00:1]"],
)
async def test_literal_addresses_are_not_reached(inside: Inside, scheme: str, host: str) -> None:
    for rules in (PUBLIC, AddressRules((ip_network("10.0.0.0/8"),))):
        assert await error_of(WebhookSender(rules, LIMITS), f"{scheme}://{host}:{inside.port}/") is not None
    assert inside.connections() == 0


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "0177.1", "0x7f000001", "2130706433", "0", "localhost", "::1", "::", "::ffff:7f00:1"]
)
async def test_the_connection_is_checked_even_without_the_check_of_the_url(inside: Inside, host: str) -> None:
    """With the system's resolver, which understands all these forms."""
    resolver = ThreadResolver(1)
    backend = CheckedBackend(PUBLIC, resolver, encrypted=True, connect_seconds=0.5)
    with pytest.raises(CannotConnect, match=FORBIDDEN):
        await backend.connect_tcp(host, inside.port)
    resolver.close()
    assert inside.connections() == 0


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["fd00:ec2::254"],
        ["fe80::1%1"],
        ["0.0.0.0"],
        ["1.1.1.1", "127.0.0.1"],
        ["127.0.0.1", "1.1.1.1"],
        ["2606:4700:4700::1111", "1.1.1.1", "::1"],
    ],
    ids=" ".join,
)
async def test_names_of_forbidden_addresses_are_not_reached(inside: Inside, addresses: list[str]) -> None:
    """One forbidden address refuses the name, also beside public ones."""
    resolve, asked = resolves_to(addresses)
    sender = WebhookSender(PUBLIC, LIMITS, resolver=resolve)
    assert await error_of(sender, f"https://hooks.example.com:{inside.port}/") == FORBIDDEN
    assert asked == ["hooks.example.com"]
    assert inside.connections() == 0


async def test_a_name_that_changes_after_the_check_is_not_followed(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public when it is checked, loopback afterwards."""
    connected: list[str] = []

    async def record(_: object, host: str, *__: object) -> httpcore.AsyncNetworkStream:
        # The test must not knock at a stranger's machine.
        connected.append(host)
        raise httpcore.ConnectError("recorded")

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", record)
    resolve, asked = resolves_to(["1.1.1.1"], ["127.0.0.1"])
    sender = WebhookSender(PUBLIC, LIMITS, resolver=resolve)
    url = f"https://hooks.example.com:{inside.port}/"
    assert await error_of(sender, url) == "the host could not be reached"
    assert connected == ["1.1.1.1"]
    assert asked == ["hooks.example.com"]
    assert await error_of(sender, url) == FORBIDDEN
    assert connected == ["1.1.1.1"]
    assert inside.connections() == 0


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    """The same with real connections: 127.0.0.2 is allowed, 127.0.0.1 is not."""
    resolve, asked = resolves_to(["127.0.0.2"], ["127.0.0.1"])
    sender = WebhookSender(AddressRules((ip_network("127.0.0.2"),)), LIMITS, resolver=resolve)
    async with (
        raw_receiver(host="127.0.0.1") as forbidden,
        raw_receiver(host="127.0.0.2", port=forbidden.port) as allowed,
    ):
        url = f"http://hooks.example.com:{forbidden.port}/"
        assert (await sender.post(url, {}, b"{}")).delivered
        assert await error_of(sender, url) == FORBIDDEN
        assert (allowed.connections, forbidden.connections, len(asked)) == (1, 0, 2)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(inside: Inside, status: int) -> None:
    rules = AddressRules((ip_network("127.0.0.2"),))
    for location in (f"http://127.0.0.1:{inside.port}/", "http://169.254.169.254/latest/meta-data/", "//[::1]/"):
        redirect = answer(f"HTTP/1.1 {status} Elsewhere\nLocation: {location}\nContent-Length: 0\n\n")
        async with raw_receiver(redirect, host="127.0.0.2") as receiver:
            outcome = await WebhookSender(rules, LIMITS).post(f"http://127.0.0.2:{receiver.port}/", {}, b"{}")
            assert outcome.status == status
            assert outcome.error == f"the receiver answered {status}; redirects are not followed"
            assert receiver.connections == 1
    assert inside.connections() == 0


async def test_plain_http_does_not_reach_public_addresses_by_name() -> None:
    resolve, _ = resolves_to(["1.1.1.1"])
    sender = WebhookSender(AddressRules((ip_network("10.0.0.0/8"),)), LIMITS, resolver=resolve)
    assert await error_of(sender, "http://hooks.example.com/") == FORBIDDEN


async def test_unix_sockets_are_not_supported() -> None:
    backend = CheckedBackend(PUBLIC, ThreadResolver(1), encrypted=True, connect_seconds=0.5)
    pool = httpcore.AsyncConnectionPool(ssl.create_default_context(), uds="/run/docker.sock", network_backend=backend)
    with pytest.raises(NotImplementedError):
        await pool.request("GET", "https://hooks.example.com/")
