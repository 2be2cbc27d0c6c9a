"""Runs Infinity's server from its own environment, with its defaults."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.peers.loops import python_of
from bench.servers import Server, environment, serving
from infra.local.redis_server import free_port

INFINITY = "infinity"


@contextmanager
def infinity(model: Path, folder: Path) -> Iterator[Server]:
    """Run `infinity_emb v2`. Raises StackError when it does not start, MeasurementFailed when it is not installed."""
    port = free_port()
    command = [
        str(Path(python_of("peers-infinity")).with_name("infinity_emb")),
        "v2",
        *("--model-id", str(model), "--served-model-name", model.name),
        *("--host", "127.0.0.1", "--port", str(port)),
        # The path that the load is sent to.
        *("--url-prefix", "/v1"),
        *("--device", "cpu"),
    ]
    variables = environment(folder) | {"DO_NOT_TRACK": "1", "PYTHONSAFEPATH": "1"}
    with serving(INFINITY, command, port, model.name, folder, variables) as server:
        yield server
