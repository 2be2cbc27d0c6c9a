"""What the chaos found: a row for each kind of fault, and a sentence for each thing that was not right."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

RECOVERY_SECONDS = 10.0
"""The promise: so long after a SIGKILL its victim's work has ended or is in other hands."""
_SHOWN = 12
_WIDTH = 120


@dataclass(slots=True)
class Row:
    """One kind of fault. The lists hold a sentence each; `worst_recovery` is None when nothing had to recover.

    `quiet_after` is how long after the last caller every job had ended.
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

    def recovered(self, seconds: float) -> None:
        """A shard was in other hands, or done, so long after its fault."""
        with self._lock:
            self.worst_recovery = max(self.worst_recovery or 0.0, seconds)

    @property
    def problems(self) -> list[str]:
        """Everything that breaks the promise."""
        found = [
            f"{self.kind}: {what}: {sentence}"
            for what in ("lost", "duplicated", "wrong")
            for sentence in getattr(self, what)
        ]
        if self.recovery_limit and self.worst_recovery is not None and self.worst_recovery > self.recovery_limit:
            found.append(f"{self.kind}: recovery took {self.worst_recovery:.1f} s, over {self.recovery_limit:g} s")
        return found


def print_table(rows: Sequence[Row], console: Console) -> None:
    """The table, then what was not right."""
    table = Table(box=MARKDOWN)
    table.add_column("fault")
    for name in ("faults", "jobs", "lost", "duplicated", "wrong", "worst recovery s"):
        table.add_column(name, justify="right")
    for row in rows:
        recovery = "-" if row.worst_recovery is None else f"{row.worst_recovery:.1f}"
        counts = (row.faults, row.jobs, len(row.lost), len(row.duplicated), len(row.wrong))
        table.add_row(row.kind, *map(str, counts), recovery)
    # Never broken into a terminal's width, so that it can be copied.
    Console(file=console.file, width=_WIDTH).print(table)
    for row in rows:
        _print_some([f"note: {row.kind}: {note}" for note in row.notes], console)
    for row in rows:
        _print_some([f"PROBLEM: {problem}" for problem in row.problems], console)


def _print_some(lines: Sequence[str], console: Console) -> None:
    for line in lines[:_SHOWN]:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if len(lines) > _SHOWN:
        console.print(f"  ... and {len(lines) - _SHOWN} more like these")
