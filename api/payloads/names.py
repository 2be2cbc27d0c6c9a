"""The names of objects in the payload store, below a namespace for each deployment.

Two deployments may share a store, and one never deletes the other's objects. Redis holds the namespace, because the
records of all objects are there, too.
"""

from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import redis.asyncio

from shared.keys import service_keys
from shared.store.client import store_errors

FILES, BATCHES = "files", "batches"


@dataclass(frozen=True, slots=True)
class ObjectOwner:
    """What an object belongs to: a file's or a batch's id, by `folder`."""

    namespace: str
    folder: str
    id: str


class PayloadNames:
    """Makes names for new objects. Raises StoreUnavailable while the namespace cannot be read."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._namespace: str | None = None

    async def namespace(self) -> str:
        """This deployment's namespace; the first call of the first process creates it."""
        if self._namespace is None:
            with store_errors():
                await self._client.set(service_keys.PAYLOAD_NAMESPACE, token_hex(8), nx=True)
                found: Any = await self._client.get(service_keys.PAYLOAD_NAMESPACE)
            self._namespace = found.decode()
        return self._namespace

    async def upload(self, file_id: str) -> str:
        """The name of an uploaded file."""
        return f"{await self.namespace()}/{FILES}/{file_id}"

    async def batch_input(self, batch_id: str) -> str:
        """The name of the input of a batch that has no file."""
        return f"{await self.namespace()}/{BATCHES}/{batch_id}/input"

    async def segment(self, batch_id: str) -> str:
        """A new name: a process that has lost the batch never overwrites a segment."""
        return f"{await self.namespace()}/{BATCHES}/{batch_id}/{token_hex(8)}"


def object_owner(name: str) -> ObjectOwner | None:
    """What an object belongs to; None for a name that was not made here."""
    parts = name.split("/")
    if (len(parts) == 3 and parts[1] == FILES) or (len(parts) == 4 and parts[1] == BATCHES):
        return ObjectOwner(*parts[:3])
    return None
