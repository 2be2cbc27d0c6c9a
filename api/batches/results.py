"""Reads a batch's rows in the order of its input, also while it runs, and describes them for jobs of many requests."""

import json
from collections.abc import AsyncIterator
from typing import Any

from api.payloads.base import PayloadStore
from shared.errors import PayloadMissing, StoreDamaged
from shared.ledger.batch_ledger import BatchLedger
from shared.ledger.batch_record import Segment


class ResultReader:
    """The rows of batches."""

    def __init__(self, ledger: BatchLedger, payloads: PayloadStore) -> None:
        self._ledger = ledger
        self._payloads = payloads

    async def rows(self, batch_id: str, after: int) -> AsyncIterator[dict[str, Any]]:
        """Yield the rows that are stored now, without the first `after` ones. Reads a segment at a time.

        Raises StoreDamaged when a segment no longer exists.
        """
        first = 0
        for segment in await self._ledger.segments(batch_id):
            if first + segment.rows > after:
                for row in (await self._segment_rows(segment))[max(0, after - first) :]:
                    yield row
            first += segment.rows

    async def page(self, batch_id: str, after: int, limit: int) -> list[dict[str, Any]]:
        """Up to `limit` rows behind the first `after` ones. Raises StoreDamaged."""
        found: list[dict[str, Any]] = []
        async for row in self.rows(batch_id, after):
            found.append(row)
            if len(found) == limit:
                break
        return found

    async def _segment_rows(self, segment: Segment) -> list[dict[str, Any]]:
        """A segment's rows, merged in the order of the input."""
        try:
            text = b"".join([chunk async for chunk in self._payloads.read(segment.name)])
        except PayloadMissing:
            raise StoreDamaged("a part of these results no longer exists") from None
        rows = [json.loads(line) for line in text.splitlines()]
        return sorted(rows, key=lambda row: int(row["line"]))


def describe_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row as jobs of many requests show it: the request's position, its custom_id, and its result or error."""
    described = {"index": row["line"] - 1, "custom_id": row["custom_id"]}
    if row["error"] is None:
        return described | {"result": row["response"]["body"]}
    error = {"type": row["error"]["code"], "message": row["error"]["message"], "param": row["error"]["param"]}
    return described | {"error": error}
