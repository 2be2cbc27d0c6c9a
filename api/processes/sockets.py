"""Listening sockets of several processes on one address.

Each process has its own socket (SO_REUSEPORT), and the kernel distributes new connections evenly. With one inherited
socket, the process that wakes first would accept a whole burst of connections.
"""

import errno
import socket
from collections.abc import Sequence

from shared.errors import ConfigurationError

_UNAVAILABLE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
"""Of one of several addresses: `localhost` has an IPv6 address, which a container may not have."""


class ListeningAddress:
    """A host and a port that each process opens for itself."""

    def __init__(self, host: str, port: int) -> None:
        """Raises ConfigurationError when another service listens there, or the host has no address here."""
        self._host = host
        self._port = port
        # With SO_REUSEPORT, a second service of the same user could listen there as well.
        _close(self._bind(port, shared=False))

    def open(self) -> list[socket.socket]:
        """New sockets, one for each address of the host; the caller listens and closes them.

        Port 0 selects a free port for the first call, and the same one for later calls. Raises ConfigurationError.
        """
        sockets = self._bind(self._port, shared=True)
        self._port = int(sockets[0].getsockname()[1])
        return sockets

    def __str__(self) -> str:
        return f"{self._host}:{self._port}"

    def _bind(self, port: int, *, shared: bool) -> list[socket.socket]:
        sockets: list[socket.socket] = []
        problem: OSError | None = None
        try:
            found = socket.getaddrinfo(self._host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
                try:
                    sockets.append(_bound(family, (address[0], port or _port_of(sockets), *address[2:]), shared))
                except OSError as error:
                    if error.errno not in _UNAVAILABLE:
                        raise
                    problem = error
            if not sockets:
                raise problem or OSError(errno.EADDRNOTAVAIL, "the host has no address")
        except OSError as error:
            _close(sockets)
            raise ConfigurationError(
                f"cannot listen on {self._host}:{port}: {error.strerror or error}", param="port"
            ) from error
        return sockets


def _bound(family: int, address: tuple[object, ...], shared: bool) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # `::` has a socket of its own beside that of 0.0.0.0, as with a single process.
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
    except OSError:
        listening.close()
        raise
    return listening


def _port_of(sockets: Sequence[socket.socket]) -> int:
    return int(sockets[0].getsockname()[1]) if sockets else 0


def _close(sockets: Sequence[socket.socket]) -> None:
    for each in sockets:
        each.close()
