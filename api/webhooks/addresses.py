"""Decides which addresses webhooks may reach: public ones, and those in networks that the operator allows.

Otherwise a caller could make the service send requests to machines that only the service can reach.
"""

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Literal
from urllib.parse import urlsplit

from shared.errors import ConfigurationError, InvalidRequest
from shared.settings import PREFIX

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL_LENGTH = 2048

# IANA's registries of special-purpose addresses. The standard library's `is_global` differs between releases of Python.
_NOT_PUBLIC_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by a provider's customers; also Alibaba Cloud's metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # services of Azure's hosts
        "169.254.0.0/16",  # link-local; also the metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; also Oracle Cloud's metadata
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# Only 2000::/3 is assigned for global unicast. Loopback, unique local, link-local and multicast are outside of it.
_GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, benchmarks
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
# The last 32 bits of these are the IPv4 address that a packet ends up at: compatible, mapped, translated, NAT64.
# 64:ff9b:1::/48 is not here: each network places the address elsewhere in it. It is outside of 2000::/3, and refused.
_ENDS_IN_V4 = tuple(IPv6Network(text) for text in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96"))
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)

_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class AddressRules:
    """`networks` may be reached in addition to public addresses, also by plain HTTP."""

    networks: tuple[Network, ...] = ()

    def allows(self, address: Address, *, encrypted: bool = True) -> bool:
        """Whether webhooks may be sent to the address. Without encryption only `networks` are allowed.

        An IPv6 address that stands for an IPv4 address is judged by the IPv4 address.
        """
        if isinstance(address, IPv6Address) and (embedded := _embedded_addresses(address)):
            return all(self.allows(inner, encrypted=encrypted) for inner in embedded)
        if any(address in network for network in self.networks):
            return True
        if not encrypted:
            return False
        if isinstance(address, IPv4Address):
            return not any(address in network for network in _NOT_PUBLIC_V4)
        return _is_public_v6(address) and all(self.allows(inner) for inner in _interface_addresses(address))


@dataclass(frozen=True, slots=True)
class WebhookUrl:
    """The parts of a URL, in the form in which they are sent. `host` is without brackets, `target` path and query."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    target: str

    @property
    def address(self) -> Address | None:
        """The address that `host` is, if it is not a name."""
        return _literal_address(self.host)

    @property
    def encrypted(self) -> bool:
        """Whether it is an https URL."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """The value of the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.encrypted else 80) else f"{host}:{self.port}"


def parse_networks(text: str) -> tuple[Network, ...]:
    """Parse networks separated by commas, such as `10.0.0.0/8,fd00::/8`. Raises ConfigurationError."""
    networks = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            networks.append(ip_network(part))
        except ValueError as error:
            raise ConfigurationError(
                f"{PREFIX}WEBHOOK_NETWORKS must be networks such as 10.0.0.0/8,fd00::/8: {error}",
                param="webhook_networks",
            ) from error
    return tuple(networks)


def check_url(url: str, rules: AddressRules, param: str = "webhook.url") -> WebhookUrl:
    """Parse a URL. Raises InvalidRequest, which names the field `param`, if nothing can ever be delivered to it.

    Host names are not resolved here. Their addresses are checked at each delivery.
    """
    try:
        parsed = _parse(url)
        if not parsed.encrypted and not rules.networks:
            raise ValueError("must be an https URL")
        if (address := parsed.address) and not rules.allows(address, encrypted=parsed.encrypted):
            raise ValueError("names an address that webhooks may not reach")
    except ValueError as error:
        raise InvalidRequest(f"{param} {error}", param=param) from error
    return parsed


def _parse(url: str) -> WebhookUrl:
    if len(url) > MAX_URL_LENGTH:
        raise ValueError(f"must have at most {MAX_URL_LENGTH} characters")
    # Parsers disagree about what spaces, control characters and backslashes mean.
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise ValueError("must consist of printable ASCII characters, without spaces and backslashes")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError("must be a URL with a port from 1 to 65535") from error
    if parts.scheme not in ("http", "https"):
        raise ValueError("must be an https URL")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user name or password")
    if port == 0:
        raise ValueError("must be a URL with a port from 1 to 65535")
    scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
    host = _check_host((parts.hostname or "").removesuffix("."), bracketed="[" in parts.netloc)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return WebhookUrl(scheme, host, port or (443 if scheme == "https" else 80), target)


def _check_host(host: str, *, bracketed: bool) -> str:
    if bracketed:
        try:
            if (address := IPv6Address(host)).scope_id is None:
                return str(address)
        except ValueError:
            pass
        raise ValueError("must have a valid IPv6 address in its brackets")
    if not _HOST_NAME.fullmatch(host):
        raise ValueError("must have a valid host name (in ASCII: xn--... for others)")
    if _NUMBER.fullmatch(host.rpartition(".")[2]) and _literal_address(host) is None:
        raise ValueError("must have a host name, or a valid IPv4 address")
    return host


def _literal_address(host: str) -> Address | None:
    if host == "localhost" or host.endswith(".localhost"):
        return IPv4Address("127.0.0.1")
    if ":" in host:
        return IPv6Address(host)
    try:
        # As getaddrinfo does: also 127.1, 0x7f.1, 0177.0.0.1 and 2130706433.
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _embedded_addresses(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses for which this address stands; empty for native IPv6 addresses."""
    if int(address) > 1 and any(address in network for network in _ENDS_IN_V4):
        return (IPv4Address(int(address) & 0xFFFF_FFFF),)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    return address.teredo or ()


def _interface_addresses(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 address in an ISATAP address, which routers of its network forward to."""
    if (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        return (IPv4Address(int(address) & 0xFFFF_FFFF),)
    return ()


def _is_public_v6(address: IPv6Address) -> bool:
    # An address with a zone (fe80::1%eth0) belongs to one link.
    if address.scope_id is not None or address not in _GLOBAL_UNICAST_V6:
        return False
    return not any(address in network for network in _NOT_PUBLIC_V6)
