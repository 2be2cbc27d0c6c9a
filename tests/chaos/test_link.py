"""The link between workers and Redis: forwards, cuts, and falls silent."""

import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from tests.chaos.link import Link


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        connection: socket.socket = self.request
        try:
            while data := connection.recv(1024):
                connection.sendall(data)
        except ConnectionError:
            pass


@pytest.fixture
def link() -> Iterator[Link]:
    """A link to a server that says what it is told."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        opened = Link(server.server_address[1])
        try:
            yield opened
        finally:
            opened.close()
            server.shutdown()


def connect(link: Link) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), timeout=2)


def say(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    return connection.recv(1024)


def test_it_forwards(link: Link) -> None:
    with connect(link) as caller:
        assert say(caller, b"one") == b"one"


def test_a_reset_is_an_rst_for_the_caller_and_new_connections_work(link: Link) -> None:
    with connect(link) as caller:
        assert say(caller, b"one") == b"one"
        assert link.reset() >= 2
        with pytest.raises(ConnectionResetError):
            caller.recv(1)
    with connect(link) as caller:
        assert say(caller, b"two") == b"two"


def test_a_silent_link_delivers_late(link: Link) -> None:
    with connect(link) as caller:
        link.stall()
        caller.settimeout(0.3)
        with pytest.raises(TimeoutError):
            say(caller, b"one")
        link.resume(dropping=False)
        caller.settimeout(2)
        assert caller.recv(1024) == b"one"


def test_a_silent_link_may_also_lose_what_it_held(link: Link) -> None:
    with connect(link) as caller:
        link.stall()
        caller.sendall(b"one")
        caller.settimeout(0.2)
        with pytest.raises(TimeoutError):
            caller.recv(1)
        link.resume(dropping=True)
        caller.settimeout(2)
        with pytest.raises(ConnectionResetError):
            caller.recv(1)
    with connect(link) as caller:
        assert say(caller, b"two") == b"two"


def test_a_target_that_is_away_closes_the_callers_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        link = Link(unused.getsockname()[1])
        try:
            with connect(link) as caller:
                assert caller.recv(1) == b""
        finally:
            link.close()
