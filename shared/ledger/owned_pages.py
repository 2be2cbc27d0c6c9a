"""Reads a page of an owner's list: a sorted set of ids by time of creation, whose records are hashes (asyncio)."""

from collections.abc import Callable
from typing import Any, TypeVar

import redis.asyncio

from shared.ledger.job_record import Position
from shared.store.client import store_errors

T = TypeVar("T")

_PAGE = 200
"""Records that are read in one round trip."""


async def read_owned_page(
    client: redis.asyncio.Redis,
    list_key: str,
    record_key: Callable[[str], str],
    parse: Callable[[str, Any], T],
    limit: int,
    after: Position | None = None,
    *,
    newest_first: bool = True,
    wanted: Callable[[T], bool] = lambda _: True,
) -> tuple[list[T], bool]:
    """Up to `limit` wanted records behind `after`, and whether there are more. Raises StoreUnavailable.

    Removes ids from the list whose records no longer exist. Records that `parse` cannot read are left out.
    """
    first: Any = after.created_ms if after else ("+inf" if newest_first else "-inf")
    last: Any = "-inf" if newest_first else "+inf"
    found: list[T] = []
    start = 0
    with store_errors():
        while True:
            entries: Any = await client.zrange(
                list_key, first, last, desc=newest_first, byscore=True, offset=start, num=_PAGE, withscores=True
            )
            positions = [Position(int(score), member.decode(errors="replace")) for member, score in entries]
            behind = [each for each in positions if after is None or (each < after if newest_first else each > after)]
            async with client.pipeline(transaction=False) as pipe:
                for position in behind:
                    pipe.hgetall(record_key(position.job_id))
                replies = await pipe.execute()
            gone = [position.job_id for position, fields in zip(behind, replies, strict=True) if not fields]
            for position, fields in zip(behind, replies, strict=True):
                record = _parse(parse, position.job_id, fields)
                if record is None or not wanted(record):
                    continue
                if len(found) == limit:
                    return found, True
                found.append(record)
            if len(entries) < _PAGE:
                return found, False
            start += len(entries) - len(gone)
            if gone:
                await client.zrem(list_key, *gone)


def _parse(parse: Callable[[str, Any], T], item: str, fields: Any) -> T | None:
    try:
        return parse(item, fields) if fields else None
    except (ValueError, TypeError, LookupError):
        return None
