"""`python -m api`: serve, or manage API keys."""

import argparse
import asyncio
import ipaddress
import logging
import sys
import time
from collections.abc import Awaitable, Callable

import uvicorn

from api.app import create_app
from api.auth.key_store import KeyStore
from api.http.http11 import Http11
from api.settings import ApiSettings
from shared.errors import ConfigurationError, RerankqError
from shared.models import load_models
from shared.store.client import connect_async

KEEP_ALIVE_SECONDS = 75
"""Load balancers keep an idle connection for a minute, and take one that is closed sooner for a server that failed."""
DRAIN_SECONDS = 10
"""How long calls in flight may still take when the server is told to stop."""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m api", description="Serve the rerank API, or manage its keys.")
    parser.add_argument("--redis-url", help="default: REDIS_URL, or redis://127.0.0.1:6379/0")
    parser.set_defaults(command="serve", host=None, port=None, models_file=None, allow_anonymous=None)
    commands = parser.add_subparsers(metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve HTTP (the default)")
    serve.set_defaults(command="serve")
    serve.add_argument("--host", help="address to listen on; default: 127.0.0.1")
    serve.add_argument("--port", type=int, help="default: 8000")
    serve.add_argument("--models-file", help="default: infra/models.yaml")
    serve.add_argument(
        "--allow-anonymous",
        action="store_true",
        default=None,
        help="listen beyond loopback although no key is configured: anybody who reaches the port may use it",
    )

    keys = commands.add_parser("keys", help="create, list or revoke API keys")
    actions = keys.add_subparsers(required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a key and print it, once")
    create.set_defaults(command="create")
    create.add_argument("name", metavar="NAME", help="what or who the key is for")
    actions.add_parser("list", help="list the keys' names and ids").set_defaults(command="list")
    revoke = actions.add_parser("revoke", help="remove a key")
    revoke.set_defaults(command="revoke")
    revoke.add_argument("name", metavar="NAME", help="the key's name or id")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    fields = {"redis_url", "host", "port", "models_file", "allow_anonymous"}
    try:
        settings = ApiSettings.from_environment(
            **{name: value for name, value in vars(options).items() if name in fields}
        )
        if options.command == "serve":
            return serve(settings)
        return asyncio.run(_with_keys(settings, _KEY_COMMANDS[options.command], getattr(options, "name", "")))
    except RerankqError as error:
        print(f"api: {error}", file=sys.stderr)
        return 2


def serve(settings: ApiSettings) -> int:
    """Serve until told to stop. Raises ConfigurationError, before the port is taken."""
    registry = load_models(settings.models_file)
    exposed = not is_loopback(settings.host)
    keys_required = exposed and not settings.allow_anonymous
    if keys_required and not asyncio.run(_any_key(settings)):
        raise ConfigurationError(
            f"will not listen on {settings.host}: no API key is configured, and anybody who reaches that address "
            "could use the service. Make a key with `python -m api keys create NAME`, or pass --allow-anonymous "
            "when something else guards the port.",
            param="host",
        )
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    uvicorn.run(
        create_app(settings, registry, keys_required=keys_required),
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        http=Http11,
        ws="none",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    return 0


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _any_key(settings: ApiSettings) -> bool:
    client = connect_async(settings.redis_url)
    try:
        return bool(await KeyStore(client).list())
    finally:
        await client.aclose()


async def _with_keys(settings: ApiSettings, command: Callable[[KeyStore, str], Awaitable[int]], name: str) -> int:
    client = connect_async(settings.redis_url)
    try:
        return await command(KeyStore(client), name)
    finally:
        await client.aclose()


async def _create(store: KeyStore, name: str) -> int:
    key = await store.create(name)
    print(
        "This key is shown once; only its hash is kept. Send it as `Authorization: Bearer KEY`.",
        file=sys.stderr,
    )
    print(key)
    return 0


async def _list(store: KeyStore, _: str) -> int:
    for record in await store.list():
        created = time.strftime("%Y-%m-%d %H:%M", time.gmtime(record.created))
        print(f"{record.id}  {created}  {record.name}")
    return 0


async def _revoke(store: KeyStore, name: str) -> int:
    if await store.revoke(name):
        print(f"revoked {name}")
        return 0
    print(f"api: there is no key {name!r}", file=sys.stderr)
    return 1


_KEY_COMMANDS: dict[str, Callable[[KeyStore, str], Awaitable[int]]] = {
    "create": _create,
    "list": _list,
    "revoke": _revoke,
}

if __name__ == "__main__":
    sys.exit(main())
