"""Serves the metrics of a process that has no HTTP server of its own."""

import logging
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

logger = logging.getLogger(__name__)

_PORTS = 64
"""How many ports, from the configured one, are tried: several processes may run on one machine."""


def expose(registry: CollectorRegistry, port: int, host: str = "0.0.0.0") -> WSGIServer | None:
    """Serve a registry on the first free port from `port` on. None, with a warning, when all are in use."""
    for each in range(port, port + _PORTS):
        try:
            server, _ = start_http_server(each, host, registry)
        except OSError:
            continue
        logger.info("metrics are served", extra={"port": server.server_port})
        return server
    logger.warning("metrics are not served: all ports are in use", extra={"first_port": port, "ports": _PORTS})
    return None
