"""Terminal output: rankings, jobs, batches and models as tables or JSON, and progress bars."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from client.batch_records import BatchError, BatchJob
from client.records import Document, Job, Model, Ranking, Row


def print_json(data: Any) -> None:
    """Print the service's JSON, for other programs."""
    print(json.dumps(data, ensure_ascii=False, indent=2))


def ranking_table(ranking: Ranking, documents: Sequence[Document] = ()) -> Table:
    """The rows, best first; `documents` are shown when the service returned none."""
    table = Table(caption=f"{ranking.model}, {ranking.total_tokens} tokens, {ranking.id}", caption_justify="left")
    table.add_column("rank", justify="right")
    table.add_column("score", justify="right")
    table.add_column("index", justify="right")
    table.add_column("document", no_wrap=True, overflow="ellipsis")
    for rank, row in enumerate(ranking.rows, start=1):
        table.add_row(str(rank), f"{row.score:.4f}", str(row.index), _text(row, documents))
    return table


def _text(row: Row, documents: Sequence[Document]) -> str:
    if row.error:
        return f"({row.error})"
    document: object = row.document
    if document is None and row.index < len(documents):
        document = documents[row.index]
    text = document.get("text", document) if isinstance(document, dict) else document
    # One line, without control characters and rich markup.
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in str(text or "")).split())
    return line.replace("[", r"\[")


def job_table(job: Job) -> Table:
    """The fields of a job."""
    table = Table(show_header=False)
    table.add_row("id", job.id)
    table.add_row("status", job.status)
    table.add_row("model", job.model)
    table.add_row("pairs done", f"{job.pairs_done} of {job.pairs_total}")
    table.add_row("shards done", f"{job.shards_done} of {job.shards_total}")
    if job.pairs_per_second is not None:
        table.add_row("pairs per second", f"{job.pairs_per_second:g}")
    if job.requests_total > 1:
        table.add_row("requests done", f"{job.requests_done} of {job.requests_total}, {job.requests_failed} failed")
    _add_moments(
        table,
        {
            "created": job.created,
            "started": job.started,
            "estimated finish": job.estimated_finish,
            "finished": job.finished,
        },
    )
    if job.message:
        table.add_row("error", job.message.replace("[", r"\["))
    return table


def batch_table(batch: BatchJob) -> Table:
    """The fields of a batch."""
    table = Table(show_header=False)
    table.add_row("id", batch.id)
    table.add_row("status", batch.status)
    table.add_row("requests done", f"{batch.requests_done} of {batch.requests_total}, {batch.requests_failed} failed")
    table.add_row("pairs done", f"{batch.pairs_done} of {batch.pairs_total}")
    if batch.pairs_per_second is not None:
        table.add_row("pairs per second", f"{batch.pairs_per_second:g}")
    _add_moments(
        table,
        {
            "created": batch.created,
            "estimated finish": batch.estimated_finish,
            "finished": batch.finished,
            "expires": None if batch.final else batch.expires,
        },
    )
    for name, value in batch.metadata.items():
        table.add_row(name.replace("[", r"\["), value.replace("[", r"\["))
    for error in batch.errors:
        table.add_row("error", batch_error(error).replace("[", r"\["))
    return table


def batches_table(batches: Sequence[BatchJob]) -> Table:
    """The batches, one a row."""
    table = Table("batch", "status", "requests", "failed", "created")
    for batch in batches:
        requests = f"{batch.requests_done} of {batch.requests_total}"
        table.add_row(batch.id, batch.status, requests, str(batch.requests_failed), moment_text(batch.created))
    return table


def batch_error(error: BatchError) -> str:
    """One line about why a batch failed."""
    return error.message if error.line is None else f"line {error.line}: {error.message}"


def moment_text(moment: float) -> str:
    """A Unix time as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def _add_moments(table: Table, moments: Mapping[str, float | None]) -> None:
    for name, moment in moments.items():
        if moment is not None:
            table.add_row(name, moment_text(moment))


def models_table(models: Sequence[Model]) -> Table:
    """The served models."""
    table = Table("model", "aliases", "workers")
    for model in models:
        table.add_row(model.id, ", ".join(model.aliases), str(model.workers))
    return table


class Bar:
    """A progress bar on standard error, shown only on a terminal."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def show(self, done: int, total: int | None, note: str = "") -> None:
        """Update the bar: `done` of `total` (None: not known yet), and a note behind it."""
        self._progress.update(self._task, completed=done, total=total, note=note)


@contextmanager
def bar(console: Console, label: str, *, of_bytes: bool = False) -> Iterator[Bar]:
    """Show a progress bar while the block runs; with `of_bytes` it counts bytes and shows their rate."""
    counts = (DownloadColumn(), TransferSpeedColumn()) if of_bytes else (MofNCompleteColumn(),)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        *counts,
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[note]}[/dim]"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bar(progress, progress.add_task(label, total=None, note=""))
