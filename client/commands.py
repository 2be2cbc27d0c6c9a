"""The commands of `python -m client`. Each returns the exit status."""

import argparse
import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.table import Table

from client.asynchronous import AsyncClient
from client.batch import Batch, BatchProgress
from client.blocking import Client
from client.documents import gather
from client.output import bar, job_table, models_table, print_json, ranking_table
from client.records import Job, Options, Ranking

OPTIONS = ("model", "top_n", "instruction", "max_tokens_per_doc", "max_chunks_per_doc", "priority", "raw_scores")
TABLE_WIDTH = 100
"""The width of tables that are not printed to a terminal."""


def rank(arguments: argparse.Namespace, errors: Console) -> int:
    documents = gather(arguments.documents, arguments.file, arguments.format)
    with _client(arguments) as client:
        ranking = client.rerank(arguments.query, documents, idempotency_key=arguments.key, **_options(arguments))
    _print(arguments, ranking.raw, lambda: ranking_table(ranking, documents))
    return 0


def submit(arguments: argparse.Namespace, errors: Console) -> int:
    documents = gather(arguments.documents, arguments.file, arguments.format)
    with _client(arguments) as client:
        job = client.submit(arguments.query, documents, idempotency_key=arguments.key, **_options(arguments))
    if arguments.json:
        print_json(job.raw)
    else:
        # Only the id, so that $(...) can capture it.
        print(job.id)
    return 0


def show(arguments: argparse.Namespace, errors: Console) -> int:
    with _client(arguments) as client:
        return _print_job(arguments, client.job(arguments.id))


def wait(arguments: argparse.Namespace, errors: Console) -> int:
    with _client(arguments) as client, bar(errors, "waiting") as progress:

        def show_progress(job: Job) -> None:
            progress.show(job.pairs_done, job.pairs_total, job.status)

        job = client.wait(arguments.id, on_progress=show_progress)
    return _print_job(arguments, job)


def results(arguments: argparse.Namespace, errors: Console) -> int:
    with _client(arguments) as client:
        ranking: Ranking = client.results(arguments.id)
    _print(arguments, ranking.raw, lambda: ranking_table(ranking))
    return 0


def cancel(arguments: argparse.Namespace, errors: Console) -> int:
    with _client(arguments) as client:
        job = client.cancel(arguments.id)
    _print(arguments, job.raw, lambda: job_table(job))
    return 0


def delete(arguments: argparse.Namespace, errors: Console) -> int:
    with _client(arguments) as client:
        client.delete(arguments.id)
    return 0


def models(arguments: argparse.Namespace, errors: Console) -> int:
    with _client(arguments) as client:
        served = client.models()
    _print(arguments, [model.raw for model in served], lambda: models_table(served))
    return 0


def batch(arguments: argparse.Namespace, errors: Console) -> int:
    work = Batch(Path(arguments.source), Path(arguments.target), _options(arguments))
    lines = work.progress
    if lines.before:
        errors.print(f"{lines.before} of {lines.total} were ranked by an earlier run", highlight=False)
    try:
        with bar(errors, "ranking") as progress:

            def show_progress(lines: BatchProgress) -> None:
                note = f"{lines.failed} failed" if lines.failed else ""
                progress.show(lines.before + lines.done, lines.total, note)

            asyncio.run(_run(arguments, work, show_progress))
    except BaseException:
        left = lines.total - lines.before - lines.done
        errors.print(f"{left} of {lines.total} are left; run the same command to continue", highlight=False)
        raise
    done = lines.before + lines.done - lines.failed
    errors.print(f"{done} of {lines.total} ranked, {lines.failed} failed: {arguments.target}", highlight=False)
    return 1 if lines.failed else 0


async def _run(arguments: argparse.Namespace, work: Batch, on_progress: Callable[[BatchProgress], None]) -> None:
    async with AsyncClient(arguments.url, **_client_options(arguments)) as client:
        await work.run(
            client, concurrency=arguments.concurrency, timeout_seconds=arguments.timeout, on_progress=on_progress
        )


def _client(arguments: argparse.Namespace) -> Client:
    return Client(arguments.url, **_client_options(arguments))


def _client_options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"timeout_seconds": arguments.timeout, "retries": arguments.retries}


def _options(arguments: argparse.Namespace) -> Options:
    """The options that were given."""
    given = {name: getattr(arguments, name, None) for name in OPTIONS}
    return cast(Options, {name: value for name, value in given.items() if value is not None})


def _print_job(arguments: argparse.Namespace, job: Job) -> int:
    _print(arguments, job.raw, lambda: job_table(job))
    return 1 if job.final and job.status != "succeeded" else 0


def _print(arguments: argparse.Namespace, raw: Any, table: Callable[[], Table]) -> None:
    if arguments.json:
        print_json(raw)
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=TABLE_WIDTH)
    console.print(table())
