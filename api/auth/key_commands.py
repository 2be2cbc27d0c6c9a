"""The commands `keys create`, `keys list` and `keys revoke` of `python -m api`."""

import argparse
import sys
import time
from collections.abc import Awaitable, Callable

from api.auth.key_store import KeyStore
from shared.store.client import connect_async


def add_key_commands(parser: argparse.ArgumentParser) -> None:
    """Add the commands to the parser of `keys`. They set `command`, and `name` where they take one."""
    commands = parser.add_subparsers(required=True, metavar="ACTION")
    create = commands.add_parser("create", help="create a key and print it once")
    create.set_defaults(command="create")
    create.add_argument("name", metavar="NAME", help="a name for the key, such as its user or purpose")
    commands.add_parser("list", help="list the keys' ids, creation times and names").set_defaults(command="list")
    revoke = commands.add_parser("revoke", help="revoke a key")
    revoke.set_defaults(command="revoke")
    revoke.add_argument("name", metavar="NAME", help="the key's name or id")


async def run_key_command(command: str, name: str, redis_url: str) -> int:
    """Run a command and return the exit status. Raises InvalidRequest or StoreUnavailable."""
    client = connect_async(redis_url)
    try:
        return await _COMMANDS[command](KeyStore(client), name)
    finally:
        await client.aclose()


async def _create(store: KeyStore, name: str) -> int:
    key = await store.create(name)
    print(
        "This key is shown once; only its hash is stored. Send it as `Authorization: Bearer KEY`.",
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


_COMMANDS: dict[str, Callable[[KeyStore, str], Awaitable[int]]] = {
    "create": _create,
    "list": _list,
    "revoke": _revoke,
}
