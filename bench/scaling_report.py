"""Formats the results of a simulation of scaling as a table, JSON and a chart. Writes only to the given folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import scaling_chart
from bench.fleet import Outcome

WAIT_LIMIT_SECONDS = 60.0
"""The default of RERANKQ_SYNC_TIMEOUT_SECONDS, after which the API responds with the job instead of its result."""
_NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """The results of one simulation, in seconds; None where the traffic has no work of that class.

    `wait_p50` and `wait_p99` are of interactive jobs, from the arrival until the last shard started. `late` is the
    share of interactive jobs that waited longer than the API's limit. `batch_p50` and `batch_last` are of batch jobs,
    from the arrival to the end.
    """

    traffic: str
    scaler: str
    varied: str
    wait_p50: float | None
    wait_p99: float | None
    late: float | None
    batch_p50: float | None
    batch_last: float | None
    worker_seconds: float
    starts: int
    most_workers: int
    unfinished: int


def summarize(traffic: str, scaler: str, varied: str, outcome: Outcome) -> Row:
    """Return the row of one outcome."""
    waits, batch = sorted(outcome.waits), sorted(outcome.batch)
    return Row(
        traffic=traffic,
        scaler=scaler,
        varied=varied,
        wait_p50=_percentile(waits, 50),
        wait_p99=_percentile(waits, 99),
        late=sum(wait > WAIT_LIMIT_SECONDS for wait in waits) / len(waits) if waits else None,
        batch_p50=_percentile(batch, 50),
        batch_last=_percentile(batch, 100),
        worker_seconds=round(outcome.worker_seconds, 1),
        starts=outcome.starts,
        most_workers=outcome.most_workers,
        unfinished=outcome.unfinished,
    )


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table; simulations with unfinished jobs are marked."""
    head = [
        "traffic",
        "scaler",
        "wait p50",
        "p99",
        "over 60 s",
        "batch p50",
        "last",
        "worker-seconds",
        "starts",
        "most",
    ]
    lines = [f"| {' | '.join(head)} |", f"|---|---|{'---:|' * (len(head) - 2)}"]
    for row in rows:
        cells = [
            row.traffic,
            f"{row.scaler}, {row.varied}" if row.varied else row.scaler,
            _seconds(row.wait_p50),
            _seconds(row.wait_p99),
            _NOTHING if row.late is None else f"{row.late:.1%}",
            _seconds(row.batch_p50),
            _seconds(row.batch_last) + (f", {row.unfinished} unfinished" if row.unfinished else ""),
            f"{row.worker_seconds:,.0f}",
            f"{row.starts:,}",
            str(row.most_workers),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write(rows: Sequence[Row], options: Mapping[str, Any], folder: Path, name: str) -> list[Path]:
    """Write the JSON and the chart. Returns the paths of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "options": dict(options),
        "rows": [asdict(row) for row in rows],
    }
    paths = [folder / f"{name}.json", folder / f"{name}.svg"]
    paths[0].write_text(json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")
    paths[1].write_text(scaling_chart.waits_and_costs(rows))
    return paths


def _percentile(values: Sequence[float], percent: int) -> float | None:
    """Return the smallest of the sorted values that `percent` % of them do not exceed; None without values."""
    if not values:
        return None
    return round(values[max(-(-len(values) * percent // 100) - 1, 0)], 2)


def _seconds(value: float | None) -> str:
    """Format with three significant digits."""
    if value is None:
        return _NOTHING
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f} s"
