"""Opens the payload store that a location names: a folder, s3://bucket/prefix, or "redis"."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import redis.asyncio

from api.payloads.base import PayloadStore
from api.payloads.folder import FolderStore
from api.payloads.redis_store import RedisStore
from shared.errors import ConfigurationError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def open_payload_store(location: str, client: redis.asyncio.Redis) -> PayloadStore:
    """The store at a location; `client` is for the one in Redis. Raises ConfigurationError; connects on first use."""
    if location == "redis":
        return RedisStore(client)
    if location.startswith("s3://"):
        # obstore is optional.
        from api.payloads.s3 import S3Store

        return S3Store(location)
    if not location or _SCHEME.match(location):
        message = f"RERANKQ_PAYLOADS: {location!r} is not the path of a folder, s3://bucket/prefix or redis"
        raise ConfigurationError(message, param="payloads")
    return FolderStore(Path(location).expanduser().absolute())


def default_location(environment: Mapping[str, str] | None = None) -> str:
    """The folder for the state of programs of this user, in $XDG_STATE_HOME or ~/.local/state."""
    state = (os.environ if environment is None else environment).get("XDG_STATE_HOME", "")
    # The XDG specification ignores relative paths.
    folder = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return str(folder / "rerankq" / "payloads")
