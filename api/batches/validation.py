"""Reads a batch's whole input once, before any line is run: counts its lines and finds what fails the batch.

A bad line fails only itself, when it is run. The batch fails for what no line alone shows: no requests, too many lines,
or a custom_id that comes twice.
"""

import json
from array import array
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from hashlib import blake2b

from api.batches.input_lines import InputLine
from api.batches.line_requests import LineParser
from shared.errors import ModelNotFound
from shared.ledger.batch_record import BatchError
from shared.models import ModelRegistry

MAX_ERRORS = 20
"""The most errors that a batch reports."""
_BUCKETS = 256


@dataclass(slots=True)
class InputTotals:
    """The input's lines and pairs, and the pairs and estimated tokens of each model. With `errors` the batch fails."""

    lines: int = 0
    pairs: int = 0
    loads: dict[str, tuple[int, int]] = field(default_factory=dict)
    errors: list[BatchError] = field(default_factory=list)

    def loads_json(self) -> str:
        return json.dumps(self.loads)


async def validate(
    lines: AsyncIterator[InputLine], parser: LineParser, models: ModelRegistry, *, max_lines: int
) -> InputTotals:
    """Read all lines. Raises what reading them raises."""
    totals, ids = InputTotals(), CustomIds()
    loads: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    async for line in lines:
        totals.lines += 1
        if totals.lines > max_lines:
            message = f"the input has more than {max_lines} requests"
            totals.errors.append(BatchError("too_many_lines", message, line.number))
            return totals
        summary = parser.summarize(line)
        if summary.custom_id is not None:
            ids.add(summary.custom_id, line.number)
        totals.pairs += summary.pairs
        try:
            load = loads[models.resolve(summary.model).name]
        except ModelNotFound:
            continue
        load[0] += summary.pairs
        load[1] += summary.tokens
    totals.loads = {model: (pairs, tokens) for model, (pairs, tokens) in loads.items()}
    if not totals.lines:
        totals.errors.append(BatchError("empty_file", "the input has no requests"))
    totals.errors += [
        BatchError(
            "duplicate_custom_id", f"the custom_id of line {number} is that of an earlier line", number, "custom_id"
        )
        for number in ids.repeated()[:MAX_ERRORS]
    ]
    return totals


class CustomIds:
    """Finds custom_ids that come twice, in 16 bytes of memory for each: a set of strings would take ten times as much.

    Compares digests of 64 bits: of ten million different ids, two are taken for equal with a chance of 3 in a million.
    """

    def __init__(self) -> None:
        self._digests = [array("Q") for _ in range(_BUCKETS)]
        self._lines = [array("Q") for _ in range(_BUCKETS)]

    def add(self, custom_id: str, line: int) -> None:
        """Remember the id of a line."""
        digest = int.from_bytes(blake2b(custom_id.encode(errors="surrogatepass"), digest_size=8).digest())
        bucket = digest % _BUCKETS
        self._digests[bucket].append(digest)
        self._lines[bucket].append(line)

    def repeated(self) -> list[int]:
        """The numbers of the lines whose id an earlier line has, ascending."""
        found: list[int] = []
        for digests, lines in zip(self._digests, self._lines, strict=True):
            if len(set(digests)) == len(digests):
                continue
            seen: set[int] = set()
            for digest, line in zip(digests, lines, strict=True):
                if digest in seen:
                    found.append(line)
                seen.add(digest)
        return sorted(found)
