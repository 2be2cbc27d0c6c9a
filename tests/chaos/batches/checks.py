"""Checks a batch that has ended: its status, its rows, and what it leaves in Redis and in the payload store."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import redis.asyncio

from api.files.sweeper import Sweeper
from api.payloads.folder import FolderStore
from api.payloads.names import PayloadNames, object_owner
from shared.ledger.batch_record import Segment
from tests.chaos.batches.client import custom_id
from tests.chaos.cases import Case, parse_ranking
from tests.chaos.report import ReportRow

Row = dict[str, Any]
_SHOWN = 10


def check_batch(batch: Row, lines: int) -> list[str]:
    """Describe what is wrong with a batch, as the API describes it, of which each line must have succeeded."""
    counts = {"total": lines, "completed": lines, "failed": 0}
    expected = {"status": "completed", "request_counts": counts, "error_file_id": None, "errors": None}
    return [
        f"{name} of the batch is {batch.get(name)}, expected {value}"
        for name, value in expected.items()
        if batch.get(name) != value
    ]


def check_rows(rows: Sequence[Row], cases: Sequence[Case], row: ReportRow) -> None:
    """Report lines that are missing, or are there more than once, or in another order, or have another ranking."""
    expected = [custom_id(case) for case in cases]
    found = [str(each["custom_id"]) for each in rows]
    counts = Counter(found)
    row.lost += _describe("have no result", [name for name in expected if name not in counts])
    row.duplicated += _describe("have several results", [name for name, count in counts.items() if count > 1])
    row.wrong += _describe("are not lines of the input", counts.keys() - set(expected))
    by_name = {custom_id(case): case for case in cases}
    if not (row.lost or row.duplicated or row.wrong) and found != expected:
        row.wrong.append("the results are not in the order of the input")
    row.wrong += _describe(
        "have another ranking", [str(each["custom_id"]) for each in rows if not _is_right(each, by_name)]
    )


def _is_right(row: Row, cases: dict[str, Case]) -> bool:
    case = cases.get(str(row["custom_id"]))
    if case is None or row["line"] != case.number or row["error"] is not None:
        return False
    return parse_ranking(row["response"]["body"]) == case.expected()


def compare_rows(rows: Sequence[Row], undisturbed: Sequence[Row]) -> list[str]:
    """Describe the rows that differ from those of an undisturbed run in more than ids and times."""
    pairs = zip(rows, undisturbed, strict=False)
    changed = [str(row["custom_id"]) for row, other in pairs if _without_ids(row) != _without_ids(other)]
    return _describe("differ from the undisturbed run", changed)


def _without_ids(row: Row) -> Row:
    row = deepcopy(row)
    del row["id"], row["response"]["request_id"], row["response"]["body"]["id"], row["response"]["body"]["created"]
    return row


def _describe(problem: str, names: Sequence[str] | set[str]) -> list[str]:
    """One problem for each line, the first ones with their name, so that the report counts lines."""
    return [f"{name}: {problem}" for name in sorted(names)]


def check_objects(folder: Path, batch_id: str, segments: Sequence[Segment], interrupted: int) -> list[str]:
    """Describe missing segments. An interrupted write may leave one object that is no segment, not more."""
    stored = {name for name in asyncio.run(_list(folder)) if _belongs_to(name, batch_id)}
    known = {segment.name for segment in segments}
    problems = [f"segment {name} is not in the payload store" for name in sorted(known - stored)]
    if len(unknown := stored - known) > interrupted:
        problems.append(f"{len(unknown)} objects of {batch_id} are no segments, after {interrupted} interrupted writes")
    return problems


def check_sweep(folder: Path, redis_port: int) -> list[str]:
    """Sweep a payload store after its files were deleted, and describe the objects and unfinished writes left."""
    asyncio.run(_sweep(folder, redis_port))
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    # The mark of the namespace belongs to no file or batch.
    return [f"the sweeper has not deleted {name}" for name in names if object_owner(name) is not None]


def _belongs_to(name: str, batch_id: str) -> bool:
    owner = object_owner(name)
    return owner is not None and owner.id == batch_id


async def _list(folder: Path) -> list[str]:
    return [found.name async for found in FolderStore(folder).list()]


async def _sweep(folder: Path, redis_port: int) -> None:
    async with redis.asyncio.Redis(port=redis_port) as client:
        await Sweeper(client, FolderStore(folder), PayloadNames(client)).sweep(grace_seconds=0.0)
