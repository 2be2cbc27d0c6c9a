"""The commands `keys create`, `list`, `show`, `rotate` and `revoke` of `python -m api`."""

import argparse
import json
import math
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict

import yaml

from api.auth.key_store import DEFAULT_SCOPES, KeyRecord, KeyStore, Scope, make_key
from shared.owner_limits import OwnerLimits, OwnerTerms
from shared.store.client import connect_async

_DAY_SECONDS = 86_400


def add_key_commands(parser: argparse.ArgumentParser) -> None:
    """Add the commands to the parser of `keys`. They set `command`, and `name` where they take one."""
    commands = parser.add_subparsers(required=True, metavar="ACTION")
    create = commands.add_parser("create", help="create a key and print it once")
    create.set_defaults(command="create")
    create.add_argument("name", metavar="NAME", help="a name for the key, such as its user or purpose")
    create.add_argument("--expires-in-days", type=_positive, metavar="N", help="the key's lifetime; default: unlimited")
    create.add_argument(
        "--scopes",
        type=_scopes,
        default=DEFAULT_SCOPES,
        metavar="SCOPES",
        help=f"of {', '.join(Scope)}, separated by commas; default: {','.join(DEFAULT_SCOPES)}",
    )
    create.add_argument(
        "--weight", type=_positive, default=1.0, metavar="N", help="share of a busy model, relative to other keys"
    )
    create.add_argument(
        "--entry", action="store_true", help="store nothing, and print an entry for the file RERANKQ_KEYS_FILE"
    )
    limits = create.add_argument_group("limits", "default: none")
    limits.add_argument("--requests-per-second", type=_positive, metavar="N")
    limits.add_argument("--pairs-per-minute", type=_positive_integer, metavar="N")
    limits.add_argument("--pending-tokens", type=_positive_integer, metavar="N", help="estimated, for each model")
    limits.add_argument("--unfinished-jobs", type=_positive_integer, metavar="N", help="for each model")
    limits.add_argument("--batch-tokens", type=_positive_integer, metavar="N", help="estimated, of unfinished batches")
    commands.add_parser("list", help="list the keys' ids, creation times and names").set_defaults(command="list")
    for command, text in (
        ("show", "print a key's record as JSON"),
        ("rotate", "replace a key's secret and print the new key once; its jobs and limits stay"),
        ("revoke", "revoke a key"),
    ):
        action = commands.add_parser(command, help=text)
        action.set_defaults(command=command)
        action.add_argument("name", metavar="NAME", help="the key's name or id")


async def run_key_command(options: argparse.Namespace, redis_url: str) -> int:
    """Run a command and return the exit status. Raises InvalidRequest or StoreUnavailable."""
    client = connect_async(redis_url)
    try:
        return await _COMMANDS[options.command](KeyStore(client), options)
    finally:
        await client.aclose()


async def _create(store: KeyStore, options: argparse.Namespace) -> int:
    limits = OwnerLimits(
        options.requests_per_second,
        options.pairs_per_minute,
        options.pending_tokens,
        options.unfinished_jobs,
        options.batch_tokens,
    )
    days = options.expires_in_days
    lifetime = None if days is None else days * _DAY_SECONDS
    terms = OwnerTerms(options.weight, limits)
    if options.entry:
        key, record = make_key(options.name, terms, lifetime, options.scopes)
        # To stderr: stdout can be appended to the file.
        print(f"This key is shown once: {key}", file=sys.stderr)
        print(yaml.safe_dump([_entry(record)], sort_keys=False), end="")
        return 0
    _print_key(await store.create(options.name, terms, lifetime, options.scopes))
    return 0


async def _list(store: KeyStore, _: argparse.Namespace) -> int:
    for record in await store.list():
        expired = "  (expired)" if record.expired(time.time()) else ""
        print(f"{record.id}  {_minute(record.created)}  {record.name}{expired}")
    return 0


async def _show(store: KeyStore, options: argparse.Namespace) -> int:
    if (record := await store.find(options.name)) is None:
        return _not_found(options.name)
    print(json.dumps(_described(record), indent=2))
    return 0


async def _rotate(store: KeyStore, options: argparse.Namespace) -> int:
    if (key := await store.rotate(options.name)) is None:
        return _not_found(options.name)
    _print_key(key)
    return 0


async def _revoke(store: KeyStore, options: argparse.Namespace) -> int:
    if not await store.revoke(options.name):
        return _not_found(options.name)
    print(f"revoked {options.name}")
    return 0


_COMMANDS: dict[str, Callable[[KeyStore, argparse.Namespace], Awaitable[int]]] = {
    "create": _create,
    "list": _list,
    "show": _show,
    "rotate": _rotate,
    "revoke": _revoke,
}


def _print_key(key: str) -> None:
    print("This key is shown once; only its hash is stored. Send it as `Authorization: Bearer KEY`.", file=sys.stderr)
    print(key)


def _entry(record: KeyRecord) -> dict[str, object]:
    """A key's record without its defaults, for a file."""
    limits = {name: value for name, value in asdict(record.terms.limits).items() if value is not None}
    entry: dict[str, object] = {
        "id": record.id,
        "name": record.name,
        "created": record.created,
        "digest": record.digest,
        "scopes": [scope.value for scope in record.scopes],
        "terms": {"weight": record.terms.weight, "limits": limits},
    }
    return entry if record.expires is None else entry | {"expires": record.expires}


def _described(record: KeyRecord) -> dict[str, object]:
    """A key's record without its digest."""
    described: dict[str, object] = {
        "id": record.id,
        "name": record.name,
        "created": _minute(record.created),
        "expires": None if record.expires is None else _minute(record.expires),
        "scopes": list(record.scopes),
    }
    return described | asdict(record.terms)


def _minute(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(moment))


def _not_found(name: str) -> int:
    print(f"api: there is no key {name!r}", file=sys.stderr)
    return 1


def _scopes(text: str) -> tuple[Scope, ...]:
    try:
        return tuple(Scope(name.strip()) for name in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be of {', '.join(Scope)}, not {text!r}") from None


def _positive(text: str) -> float:
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return value


def _positive_integer(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {text!r}")
    return value
