"""The cases, and the rows that come from what all of them used: memory, and the time of Redis."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.batch.context import Context
from bench.batch.interactive import interactive
from bench.batch.report import Measurement
from bench.batch.throughput import engine, lines, pairs
from bench.batch.upload import upload
from bench.batch.workers import workers

MEMORY_MIB = 300


@dataclass(frozen=True, slots=True)
class Case:
    """`limit_seconds`: the case fails when it takes longer."""

    title: str
    run: Callable[[Context], list[Measurement]]
    limit_seconds: float


CASES = {
    "pairs": Case("long lines: against the client's own batch mode", pairs, 900),
    "engine": Case("vLLM on the CPU: against the bare engine", engine, 600),
    "lines": Case("lines of one document", lines, 1500),
    "interactive": Case("interactive calls beside a batch", interactive, 600),
    "workers": Case("one, two and four workers", workers, 600),
    "upload": Case("the upload of a large file", upload, 600),
}
MEMORY, LEDGER = "memory", "ledger"
ORDER = ("pairs", "engine", "lines", MEMORY, "interactive", "workers", "upload", LEDGER)
"""The order of the table."""


def memory_rows(context: Context) -> list[Measurement]:
    """The peaks of memory of the lexical cases so far."""
    peaks = context.peaks
    if not peaks.api:
        return []
    found = {"API": peaks.api / 2**20, "runner": peaks.runner / 2**20, "Redis": peaks.redis / 2**20}
    return [
        Measurement(
            "memory during all lexical cases, highest: API, runner, Redis",
            ", ".join(f"{name} {mib:.0f} MiB" for name, mib in found.items()),
            f"< {MEMORY_MIB} MiB each",
            max(found.values()) < MEMORY_MIB,
            {f"{name.lower()}_mib": mib for name, mib in found.items()},
        )
    ]


def ledger_rows(context: Context) -> list[Measurement]:
    """The processor time of Redis per shard, and what one core of it allows."""
    rows = []
    for shape in (context.sizes.pairs, context.sizes.lines):
        if (spent := context.redis_time.get(shape)) is None:
            continue
        ceiling = 1e6 / spent.process
        many = f", {ceiling * shape.documents:,.0f} pairs/s" if shape.documents > 1 else ""
        rows.append(
            Measurement(
                f"processor time of Redis per shard of {shape.documents} "
                f"{'document' if shape.documents == 1 else 'documents'}; what one core allows",
                f"{spent.process:,.0f} us ({spent.scripts:,.0f} us in scripts); {ceiling:,.0f} shards/s{many}",
                "printed",
                None,
                {
                    "process_us": spent.process,
                    "main_thread_us": spent.main_thread,
                    "scripts_us": spent.scripts,
                    "shards_per_second": ceiling,
                },
            )
        )
    return rows
