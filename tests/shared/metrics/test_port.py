import socket
import urllib.request

from prometheus_client import CollectorRegistry, Counter

from shared.metrics.port import expose


def test_the_next_free_port_serves_the_metrics() -> None:
    registry = CollectorRegistry()
    Counter("starts", "Starts", registry=registry).inc()
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        server = expose(registry, port)
        assert server is not None
        try:
            assert server.server_port > port
            with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=5) as response:
                assert b"starts_total 1.0" in response.read()
        finally:
            server.shutdown()
            server.server_close()
