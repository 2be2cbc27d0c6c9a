"""The TCP proxy forwards, resets and stalls connections."""

import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from tests.chaos.tcp_proxy import TcpProxy


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        connection: socket.socket = self.request
        try:
            while data := connection.recv(1024):
                connection.sendall(data)
        except ConnectionError:
            pass


@pytest.fixture
def proxy() -> Iterator[TcpProxy]:
    """A proxy in front of an echo server."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        opened = TcpProxy(server.server_address[1])
        try:
            yield opened
        finally:
            opened.close()
            server.shutdown()


def connect(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=2)


def exchange(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    return connection.recv(1024)


def test_data_is_forwarded_in_both_directions(proxy: TcpProxy) -> None:
    with connect(proxy) as client:
        assert exchange(client, b"one") == b"one"


def test_a_reset_sends_an_rst_to_the_client_and_new_connections_work(proxy: TcpProxy) -> None:
    with connect(proxy) as client:
        assert exchange(client, b"one") == b"one"
        assert proxy.reset() >= 2
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connect(proxy) as client:
        assert exchange(client, b"two") == b"two"


def test_resuming_a_stalled_proxy_delivers_the_delayed_data(proxy: TcpProxy) -> None:
    with connect(proxy) as client:
        proxy.stall()
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            exchange(client, b"one")
        proxy.resume(dropping=False)
        client.settimeout(2)
        assert client.recv(1024) == b"one"


def test_resuming_with_dropping_resets_stalled_connections(proxy: TcpProxy) -> None:
    with connect(proxy) as client:
        proxy.stall()
        client.sendall(b"one")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        proxy.resume(dropping=True)
        client.settimeout(2)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connect(proxy) as client:
        assert exchange(client, b"two") == b"two"


def test_the_client_connection_is_closed_if_the_target_is_unreachable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        proxy = TcpProxy(unused.getsockname()[1])
        try:
            with connect(proxy) as client:
                assert client.recv(1) == b""
        finally:
            proxy.close()
