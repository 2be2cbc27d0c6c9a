"""Batches that still collect requests, in Redis (asyncio): a finalized one becomes a job of many requests.

They are lost with Redis's data, and deleted when nobody finalizes them. Raises StoreUnavailable when Redis is
unreachable or refuses writes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import redis.asyncio

from shared.errors import InvalidRequest, JobNotFound, PayloadTooLarge, RateLimited
from shared.keys import batch_keys
from shared.store.client import store_errors
from shared.store.scripts import script_source

MAX_REQUESTS = 10_000
MAX_OPEN_BATCHES = 4
"""The most open batches of one owner. Their requests take memory in Redis."""
OPEN_SECONDS = 86_400.0
"""The lifetime of an open batch, from the last addition."""


class OpenStatus(StrEnum):
    """The status of a batch that has not become a job."""

    OPEN = "open"
    FINALIZED = "finalized"
    """It takes no more requests, but no job was created: finalizing it again does that."""
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """A batch that has not become a job, and the number of its requests."""

    id: str
    status: OpenStatus
    requests: int


class OpenBatchLedger:
    """The open batches of all owners. `max_bytes` limits the requests of one."""

    def __init__(self, client: redis.asyncio.Redis, max_bytes: int) -> None:
        self._client = client
        self._max_bytes = max_bytes
        names = ("collect_requests", "close_open_batch")
        self._scripts: dict[str, Any] = {name: client.register_script(script_source(name)) for name in names}

    async def create(self, batch_id: str, owner: str, model: str, requests: Sequence[bytes]) -> OpenBatch:
        """Create an open batch. Raises InvalidRequest, PayloadTooLarge or RateLimited for what is over a limit."""
        return await self._collect("create", batch_id, owner, model, requests)

    async def add(self, batch_id: str, owner: str, model: str, requests: Sequence[bytes]) -> OpenBatch:
        """Add requests. Raises JobNotFound, InvalidRequest for a closed batch, and as `create`."""
        return await self._collect("add", batch_id, owner, model, requests)

    async def read(self, batch_id: str, owner: str, model: str) -> OpenBatch:
        """Raises JobNotFound."""
        with store_errors():
            found: Any = await self._client.hmget(batch_keys.open_batch(batch_id), ["owner", "model", "status"])
            requests: Any = await self._client.llen(batch_keys.collected_requests(batch_id))
        if found[0] is None or (found[0].decode(), found[1].decode()) != (owner, model):
            raise _missing(batch_id)
        return OpenBatch(batch_id, OpenStatus(found[2].decode()), requests)

    async def finalize(self, batch_id: str, owner: str, model: str) -> list[bytes]:
        """Close the batch and return its requests. Raises JobNotFound, and InvalidRequest when it has none."""
        status, *requests = await self._close(batch_id, owner, model, OpenStatus.FINALIZED)
        if status == OpenStatus.CANCELED:
            raise InvalidRequest("id: the batch was cancelled", param="id")
        if status == "empty":
            raise InvalidRequest("id: the batch has no requests", param="id")
        return list(requests[0])

    async def cancel(self, batch_id: str, owner: str, model: str) -> OpenBatch:
        """Close the batch and delete its requests. A finalized one is unchanged. Raises JobNotFound."""
        await self._close(batch_id, owner, model, OpenStatus.CANCELED)
        return await self.read(batch_id, owner, model)

    async def delete(self, batch_id: str, owner: str) -> None:
        """Delete a finalized batch, which has become a job."""
        with store_errors():
            await self._client.delete(batch_keys.open_batch(batch_id), batch_keys.collected_requests(batch_id))
            await self._client.zrem(batch_keys.owned_open_batches(owner), batch_id)

    async def _collect(
        self, action: str, batch_id: str, owner: str, model: str, requests: Sequence[bytes]
    ) -> OpenBatch:
        limits = (MAX_REQUESTS, self._max_bytes, MAX_OPEN_BATCHES)
        args = [batch_id, owner, model, int(OPEN_SECONDS * 1000), *limits, action, *requests]
        with store_errors():
            verdict, *rest = await self._scripts["collect_requests"](keys=_keys(batch_id, owner), args=args)
        match verdict.decode():
            case "ok":
                return OpenBatch(batch_id, OpenStatus.OPEN, int(rest[0]))
            case "missing":
                raise _missing(batch_id)
            case "closed":
                raise InvalidRequest(f"id: the batch is {rest[0].decode()}: nothing can be added to it", param="id")
            case "batches":
                raise RateLimited(f"at most {rest[0]} batches may be open at once: finalize or cancel one", param="id")
            case "requests":
                raise InvalidRequest(f"requests: a batch has at most {rest[0]} requests", param="requests")
            case _:
                raise PayloadTooLarge(f"the requests of an open batch are over the limit of {rest[0]} bytes")

    async def _close(self, batch_id: str, owner: str, model: str, status: OpenStatus) -> list[Any]:
        args = [batch_id, owner, model, status]
        with store_errors():
            verdict, *rest = await self._scripts["close_open_batch"](keys=_keys(batch_id, owner), args=args)
        if verdict == b"missing":
            raise _missing(batch_id)
        return [verdict.decode(), *rest]


def _keys(batch_id: str, owner: str) -> list[str]:
    return [
        batch_keys.open_batch(batch_id),
        batch_keys.collected_requests(batch_id),
        batch_keys.owned_open_batches(owner),
    ]


def _missing(batch_id: str) -> JobNotFound:
    return JobNotFound(f"there is no batch {batch_id[:100]!r}", param="id")
