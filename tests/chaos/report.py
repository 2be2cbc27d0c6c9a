"""The report of a run: a row for each kind of fault, and a line for each problem."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

RECOVERY_SECONDS = 10.0
"""How long after a SIGKILL the worker's shards must be finished or claimed again."""
_MAX_LINES = 12
_WIDTH = 120


@dataclass(slots=True)
class ReportRow:
    """The outcome of one kind of fault. The lists hold descriptions of single problems.

    `worst_recovery` is None if no shard had to recover. `quiet_after`: seconds from the end of the load until every
    job had ended.
    """

    kind: str
    faults: int = 0
    jobs: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    worst_recovery: float | None = None
    recovery_limit: float | None = None
    quiet_after: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def record_recovery(self, seconds: float) -> None:
        """Record that a shard finished or was claimed again this long after its fault."""
        with self._lock:
            self.worst_recovery = max(self.worst_recovery or 0.0, seconds)

    @property
    def problems(self) -> list[str]:
        """All violations: lost, duplicated and wrong jobs, and recovery over its limit."""
        found = [
            f"{self.kind}: {category}: {description}"
            for category in ("lost", "duplicated", "wrong")
            for description in getattr(self, category)
        ]
        if self.recovery_limit and self.worst_recovery is not None and self.worst_recovery > self.recovery_limit:
            found.append(f"{self.kind}: recovery took {self.worst_recovery:.1f} s, over {self.recovery_limit:g} s")
        return found


def print_table(rows: Sequence[ReportRow], console: Console) -> None:
    """Print the table, then notes and problems."""
    table = Table(box=MARKDOWN)
    table.add_column("fault")
    for name in ("faults", "jobs", "lost", "duplicated", "wrong", "worst recovery s"):
        table.add_column(name, justify="right")
    for row in rows:
        recovery = "-" if row.worst_recovery is None else f"{row.worst_recovery:.1f}"
        counts = (row.faults, row.jobs, len(row.lost), len(row.duplicated), len(row.wrong))
        table.add_row(row.kind, *map(str, counts), recovery)
    # Fixed width, independent of the terminal, so that the table can be copied.
    Console(file=console.file, width=_WIDTH).print(table)
    for row in rows:
        _print_some([f"note: {row.kind}: {note}" for note in row.notes], console)
    for row in rows:
        _print_some([f"PROBLEM: {problem}" for problem in row.problems], console)


def _print_some(lines: Sequence[str], console: Console) -> None:
    for line in lines[:_MAX_LINES]:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if len(lines) > _MAX_LINES:
        console.print(f"  ... and {len(lines) - _MAX_LINES} more")
