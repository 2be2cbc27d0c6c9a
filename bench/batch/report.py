"""The results: one row of the table for each measurement, and a JSON file. Measures nothing."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row of the table. `met` is None for a figure without a target."""

    what: str
    measured: str
    target: str
    met: bool | None
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        return "" if self.met is None else "met" if self.met else "missed"


class Report:
    """All results of a run. `order` is the order of the groups of rows in the table."""

    def __init__(self, order: Sequence[str], settings: Mapping[str, Any]) -> None:
        """`settings` is copied into the JSON. Reads the load of the machine, so create it before the first case."""
        self._order = order
        self._groups: dict[str, Sequence[Measurement]] = {}
        self._head = {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": machine.describe(),
            "versions": machine.versions(),
            "settings": settings,
        }
        self.failures: list[str] = []

    def add(self, group: str, rows: Sequence[Measurement]) -> None:
        """Set the rows of a group, which replace earlier ones."""
        self._groups[group] = rows

    @property
    def rows(self) -> list[Measurement]:
        """The rows so far, in the order of the table."""
        return [row for group in self._order for row in self._groups.get(group, ())]

    @property
    def all_met(self) -> bool:
        """Whether no case failed and no target was missed."""
        return not self.failures and all(row.met is not False for row in self.rows)

    def write(self, path: Path, *, unmeasured: Iterable[str] = ()) -> None:
        """Write the results so far. `unmeasured` are the cases that have not run yet."""
        content = self._head | {
            "unmeasured": list(unmeasured),
            "failures": self.failures,
            "cases": [asdict(row) for row in self.rows],
        }
        # An interruption while writing must not destroy the results of the earlier cases.
        partial = path.with_name(f"{path.name}.part")
        partial.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(partial, path)


def table(rows: Iterable[Measurement]) -> str:
    """The rows as a Markdown table."""
    lines = ["| case | measured | target | |", "|---|---|---|---|"]
    lines += [f"| {row.what} | {row.measured} | {row.target} | {row.verdict} |" for row in rows]
    return "\n".join(lines)
