"""Which URLs are accepted for webhooks."""

import socket
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.webhooks.addresses import AddressRules, WebhookUrl, check_url
from shared.errors import InvalidRequest

PUBLIC = AddressRules()
PRIVATE = AddressRules((ip_network("10.0.0.0/8"), ip_network("127.0.0.0/8"), ip_network("::1")))


def refusal(url: str, rules: AddressRules = PUBLIC) -> str:
    with pytest.raises(InvalidRequest) as caught:
        check_url(url, rules, "endpoint.url")
    assert caught.value.param == "endpoint.url"
    return caught.value.message.removeprefix("endpoint.url ")


def test_a_url_is_taken_apart_as_it_is_sent() -> None:
    assert check_url("https://hooks.example.com", PUBLIC) == WebhookUrl("https", "hooks.example.com", 443, "/")
    parsed = check_url("HTTPS://Hooks.Example.com.:8443/a/b?key=1&x=%20#part", PUBLIC)
    assert parsed == WebhookUrl("https", "hooks.example.com", 8443, "/a/b?key=1&x=%20")
    assert parsed.authority == "hooks.example.com:8443"
    assert check_url("https://[2606:4700::1111]/", PUBLIC).authority == "[2606:4700::1111]"
    assert check_url("https://8.8.8.8:443/", PUBLIC).authority == "8.8.8.8"


@pytest.mark.parametrize("url", ["http://hooks.example.com/", "http://8.8.8.8/"])
def test_plain_http_is_refused(url: str) -> None:
    assert refusal(url) == "must be an https URL"


def test_plain_http_is_accepted_for_networks_that_the_operator_allows() -> None:
    assert not check_url("http://10.0.0.1/", PRIVATE).encrypted
    assert not check_url("http://hooks.internal/", PRIVATE).encrypted  # its addresses are checked at each delivery
    assert refusal("http://8.8.8.8/", PRIVATE) == "names an address that webhooks may not reach"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "must be an https URL"),
        ("hooks.example.com/path", "must be an https URL"),
        ("//hooks.example.com/", "must be an https URL"),
        ("ftp://hooks.example.com/", "must be an https URL"),
        ("file:///etc/passwd", "must be an https URL"),
        ("gopher://hooks.example.com/", "must be an https URL"),
        ("https://user@hooks.example.com/", "must not contain a user name or password"),
        ("https://user:secret@hooks.example.com/", "must not contain a user name or password"),
        ("https://hooks.example.com@127.0.0.1/", "must not contain a user name or password"),
        ("https://hooks.example.com:0/", "must be a URL with a port from 1 to 65535"),
        ("https://hooks.example.com:65536/", "must be a URL with a port from 1 to 65535"),
        ("https://hooks.example.com:x/", "must be a URL with a port from 1 to 65535"),
        ("https://hooks.example.com/" + "a" * 2048, "must have at most 2048 characters"),
        ("https://hooks.example.com/a b", "must consist of printable ASCII characters, without spaces and backslashes"),
        ("https://hooks.example.com/\r\nX: 1", "must consist of printable ASCII characters, without spaces and backsl"),
        ("\thttps://hooks.example.com/", "must consist of printable ASCII characters, without spaces and backslashes"),
        ("https://hooks.example.com\\@127.0.0.1/", "must consist of printable ASCII characters, without spaces and b"),
        ("https://１２７.0.0.1/", "must consist of printable ASCII characters, without spaces and backslashes"),
        ("https:///path", "must have a valid host name"),
        ("https://:443/", "must have a valid host name"),
        ("https://./", "must have a valid host name"),
        ("https://a..b/", "must have a valid host name"),
        ("https://%31%32%37.0.0.1/", "must have a valid host name"),
        ("https://" + "a" * 64 + ".example.com/", "must have a valid host name"),
        ("https://127.0.0.1.1/", "must have a host name, or a valid IPv4 address"),
        ("https://256.256.256.256/", "must have a host name, or a valid IPv4 address"),
        ("https://example.0x/", "must have a host name, or a valid IPv4 address"),
        ("https://4294967296/", "must have a host name, or a valid IPv4 address"),
        ("https://[::1", "must be a URL with a port"),
        ("https://[127.0.0.1]/", "must "),
        ("https://[v1.a]/", "must have a valid IPv6 address in its brackets"),
        ("https://[fe80::1%25eth0]/", "must have a valid IPv6 address in its brackets"),
    ],
)
def test_malformed_urls_get_an_error_that_names_the_field(url: str, message: str) -> None:
    assert refusal(url).startswith(message)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "0x7f.0.0.1",
        "0x7f.1",
        "0X7F.1",
        "0177.0.0.1",
        "0177.0x0.01",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "0",
        "0x0",
        "00000000000000000000177.1",
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "0251.0376.0251.0376",
        "169.254.43518",
        "10.0.0.1",
        "192.168.257",
        "localhost",
        "LOCALHOST.",
        "metadata.localhost",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:a9fe:a9fe]",
        "[::127.0.0.1]",
        "[64:ff9b::169.254.169.254]",
        "[2002:7f00:1::]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[ff02::1]",
    ],
)
def test_every_form_of_a_private_address_is_refused_at_once(host: str) -> None:
    assert refusal(f"https://{host}:8443/hook") == "names an address that webhooks may not reach"


@pytest.mark.parametrize("host", ["127.0.0.1", "0x7f.1", "2130706433", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
def test_an_address_in_an_allowed_network_is_accepted_in_every_form(host: str) -> None:
    check_url(f"https://{host}/", PRIVATE)
    check_url(f"http://{host}/", PRIVATE)


@given(st.from_regex(r"(0x[0-9a-f]{1,8}|0?[0-9]{1,10})(\.(0x[0-9a-f]{1,4}|0?[0-9]{1,5})){0,3}", fullmatch=True))
def test_a_number_is_accepted_only_if_the_system_resolves_it_to_a_public_address(host: str) -> None:
    try:
        check_url(f"https://{host}/", PUBLIC)
    except InvalidRequest:
        return
    addresses = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    assert all(PUBLIC.allows(ip_address(entry[4][0])) for entry in addresses)


@given(st.text(max_size=60).map("https://{}".format) | st.text(max_size=60))
def test_any_text_is_a_url_or_an_invalid_request(text: str) -> None:
    try:
        parsed = check_url(text, PRIVATE)
    except InvalidRequest:
        return
    sent = parsed.host + parsed.target
    assert sent.isascii()
    assert sent.isprintable()
    assert " " not in sent
