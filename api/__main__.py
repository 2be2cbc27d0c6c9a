"""`python -m api`: serves the API, runs batches, or manages API keys."""

import argparse
import asyncio
import ipaddress
import logging
import sys
from typing import Any

import uvicorn

from api.app import create_app
from api.auth.key_commands import add_key_commands, run_key_command
from api.auth.key_file import KeyFile
from api.auth.key_store import KeyStore
from api.batches.main import run_batches
from api.http.http11 import limited_to
from api.metrics.shared_files import shared_folder
from api.processes.group import ProcessGroup
from api.processes.sockets import ListeningAddress
from api.processes.supervisor import Supervisor
from api.settings import ApiSettings
from shared.errors import ConfigurationError, RerankqError
from shared.logs import set_up_logging
from shared.models import ModelRegistry, load_models
from shared.store.client import connect_async
from shared.tracing import require_tracing

KEEP_ALIVE_SECONDS = 75
"""Longer than the usual 60 s of load balancers: they report an error when the server closes a connection first."""
DRAIN_SECONDS = 10
"""The time for requests in progress after the server receives a signal to stop."""
CLEANUP_SECONDS = 9
"""The time that a process has afterwards: the batch runner may take eight seconds to stop."""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m api", description="Serve the rerank API, run batches, or manage API keys."
    )
    parser.add_argument("--redis-url", help="default: REDIS_URL, or redis://127.0.0.1:6379/0")
    parser.set_defaults(command="serve", host=None, port=None, processes=None, models_file=None, allow_anonymous=None)
    commands = parser.add_subparsers(metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve HTTP (the default)")
    serve.set_defaults(command="serve")
    serve.add_argument("--host", help="address to listen on; default: 127.0.0.1")
    serve.add_argument("--port", type=int, help="default: 8000")
    serve.add_argument("--processes", type=int, metavar="N", help="processes that serve the port; default: 1")
    serve.add_argument("--models-file", help="default: infra/models.yaml")
    serve.add_argument(
        "--allow-anonymous",
        action="store_true",
        default=None,
        help="listen beyond loopback without any API key: every client that reaches the port can use the service",
    )

    batches = commands.add_parser("batches", help="run batches, when the API does not start a runner itself")
    batches.set_defaults(command="batches")
    batches.add_argument("--models-file", help="default: infra/models.yaml")
    batches.add_argument("--until-idle", type=float, metavar="SECONDS", help="exit after so long without a batch")

    add_key_commands(commands.add_parser("keys", help="create, list or revoke API keys"))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    fields = {"redis_url", "host", "port", "processes", "models_file", "allow_anonymous"}
    try:
        settings = ApiSettings.from_environment(
            **{name: value for name, value in vars(options).items() if name in fields}
        )
        if options.command == "serve":
            return serve(settings)
        if options.command == "batches":
            _set_up_logging(settings)
            return asyncio.run(run_batches(settings, options.until_idle))
        return asyncio.run(run_key_command(options, settings.redis_url))
    except RerankqError as error:
        print(f"api: {error}", file=sys.stderr)
        return 2


def serve(settings: ApiSettings) -> int:
    """Serve until the process receives a signal to stop. Raises ConfigurationError before it opens the port."""
    registry = load_models(settings.models_file)
    exposed = not is_loopback(settings.host)
    keys_required = exposed and not settings.allow_anonymous
    in_file = KeyFile(settings.keys_file).records() if settings.keys_file else []
    if keys_required and not in_file and not asyncio.run(_has_keys(settings.redis_url)):
        raise ConfigurationError(
            f"will not listen on {settings.host}: no API key is configured, and every client that reaches that "
            "address could use the service. Create a key with `python -m api keys create NAME`, or pass "
            "--allow-anonymous when a firewall or proxy protects the port.",
            param="host",
        )
    require_tracing(settings.tracing)
    _set_up_logging(settings)
    group = ProcessGroup(settings.processes)
    with shared_folder(group):
        return _serve(settings, registry, group, keys_required=keys_required)


def _serve(settings: ApiSettings, registry: ModelRegistry, group: ProcessGroup, *, keys_required: bool) -> int:
    app = create_app(settings, registry, keys_required=keys_required, group=group)
    options: dict[str, Any] = {
        # Otherwise uvicorn reads WEB_CONCURRENCY.
        "workers": 1,
        "access_log": False,
        "log_config": None,
        "http": limited_to(settings.per_process(settings.max_connections)),
        "ws": "none",
        "server_header": False,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "timeout_graceful_shutdown": DRAIN_SECONDS,
    }
    if settings.processes == 1:
        uvicorn.run(app, host=settings.host, port=settings.port, **options)
        return 0
    address = ListeningAddress(settings.host, settings.port)
    # uvicorn's own supervisor spawns: its processes share no memory, and need the application by an import path.
    supervisor = Supervisor(
        group,
        address,
        lambda sockets: uvicorn.Server(uvicorn.Config(app, **options)).run(list(sockets)),
        DRAIN_SECONDS + CLEANUP_SECONDS,
    )
    return supervisor.run()


def _set_up_logging(settings: ApiSettings) -> None:
    set_up_logging(settings.log_level, settings.log_form, process="api")
    # It warns about every malformed upload, with parts of it.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)


def is_loopback(host: str) -> bool:
    """Whether the address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _has_keys(redis_url: str) -> bool:
    client = connect_async(redis_url)
    try:
        return bool(await KeyStore(client).list())
    finally:
        await client.aclose()


if __name__ == "__main__":
    sys.exit(main())
