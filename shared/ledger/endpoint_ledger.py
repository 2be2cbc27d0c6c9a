"""Webhook endpoints in Redis (asyncio), each one a record in JSON. Knows nothing of what is in a record."""

from typing import Any

import redis.asyncio

from shared.errors import InvalidRequest
from shared.keys import webhook_keys
from shared.ledger.delivery_record import DEFAULT_ENDPOINT
from shared.store.client import store_errors
from shared.store.scripts import script_source

MAX_ENDPOINTS = 10
"""The most endpoints of one owner, without its default secret."""


class EndpointLedger:
    """The endpoints of all owners. Raises StoreUnavailable when Redis is unreachable or refuses writes."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._replace: Any = client.register_script(script_source("replace_endpoint"))

    async def all(self) -> dict[tuple[str, str], str]:
        """The records of all endpoints, by owner and id."""
        with store_errors():
            found: Any = await self._client.hgetall(webhook_keys.ENDPOINTS)
        return {_parse(field.decode(errors="replace")): text.decode(errors="replace") for field, text in found.items()}

    async def read(self, owner: str, endpoint_id: str) -> str | None:
        """One record; None when it does not exist."""
        with store_errors():
            text: Any = await self._client.hget(webhook_keys.ENDPOINTS, webhook_keys.endpoint_field(owner, endpoint_id))
        return None if text is None else str(text.decode(errors="replace"))

    async def replace(self, owner: str, endpoint_id: str, before: str | None, after: str | None) -> bool:
        """Write a record; `before` None creates it, `after` None deletes it.

        Returns False when the record is not `before` any more. Raises InvalidRequest when the owner has too many.
        """
        field = webhook_keys.endpoint_field
        args: list[str | int] = [field(owner, endpoint_id), before or "", after or ""]
        args += [field(owner, ""), field(owner, DEFAULT_ENDPOINT), MAX_ENDPOINTS]
        with store_errors():
            answer: bytes = await self._replace(keys=[webhook_keys.ENDPOINTS], args=args)
        if answer == b"full":
            raise InvalidRequest(f"a key has at most {MAX_ENDPOINTS} webhooks: delete one first")
        return answer == b"done"


def _parse(field: str) -> tuple[str, str]:
    owner, _, endpoint_id = field.partition("/")
    return owner, endpoint_id
