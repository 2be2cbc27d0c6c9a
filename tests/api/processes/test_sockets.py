import socket

import pytest

from api.processes.sockets import ListeningAddress
from infra.local.redis_server import free_port
from shared.errors import ConfigurationError


def test_each_process_has_a_socket_and_connections_are_distributed() -> None:
    address = ListeningAddress("127.0.0.1", 0)
    (one,), (two,) = address.open(), address.open()
    with one, two:
        assert one.getsockname() == two.getsockname()
        for listening in (one, two):
            listening.listen(200)
            listening.setblocking(False)
        callers = [socket.create_connection(one.getsockname(), timeout=5) for _ in range(100)]
        shares = [len(accepted(listening)) for listening in (one, two)]
        for caller in callers:
            caller.close()
    assert sum(shares) == 100
    # An even distribution gives one of them 25 or fewer once in three million runs.
    assert min(shares) > 25


def accepted(listening: socket.socket) -> list[socket.socket]:
    """All connections that wait to be accepted, closed."""
    connections: list[socket.socket] = []
    while True:
        try:
            connection, _ = listening.accept()
        except BlockingIOError:
            return connections
        connection.close()
        connections.append(connection)


def test_port_in_use_is_an_error_also_when_its_sockets_may_be_shared() -> None:
    (taken,) = ListeningAddress("127.0.0.1", 0).open()
    with taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            ListeningAddress("127.0.0.1", port)


def test_unknown_host_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot listen on 203\.0\.113\.1:8000: Cannot assign"):
        ListeningAddress("203.0.113.1", 8000)


def test_localhost_is_served_on_all_its_addresses() -> None:
    sockets = ListeningAddress("localhost", free_port()).open()
    addresses = {each.getsockname()[0] for each in sockets}
    for each in sockets:
        each.close()
    assert "127.0.0.1" in addresses
    assert addresses <= {"127.0.0.1", "::1"}
