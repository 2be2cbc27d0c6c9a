"""What each command does; answers the exit status."""

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
"""Of a table that no terminal shows: nobody's lines are that long, and a file's need not be shorter."""


def rank(arguments: argparse.Namespace, errors: Console) -> int:
    documents = gather(arguments.documents, arguments.file, arguments.format)
    with _client(arguments) as client:
        ranking = client.rerank(arguments.query, documents, idempotency_key=arguments.key, **_options(arguments))
    _show(arguments, ranking.raw, lambda: ranking_table(ranking, documents))
    return 0


def submit(arguments: argparse.Namespace, errors: Console) -> int:
    documents = gather(arguments.documents, arguments.file, arguments.format)
    with _client(arguments) as client:
        job = client.submit(arguments.query, documents, idempotency_key=arguments.key, **_options(arguments))
    if arguments.json:
        print_json(job.raw)
    else:
        # Alone on its line: for $(...).
        print(job.id)
    return 0


def show(arguments: argparse.Namespace, errors: Console) -> int:
    with _client(arguments) as client:
        return _tell_of(arguments, client.job(arguments.id))


def wait(arguments: argparse.Namespace, errors: Console) -> int:
    with _client(arguments) as client, bar(errors, "waiting") as progress:

        def heard(job: Job) -> None:
            progress.show(job.pairs_done, job.pairs_total, job.status)

        job = client.wait(arguments.id, heard=heard)
    return _tell_of(arguments, job)


def results(arguments: argparse.Namespace, errors: Console) -> int:
    with _client(arguments) as client:
        ranking: Ranking = client.results(arguments.id)
    _show(arguments, ranking.raw, lambda: ranking_table(ranking))
    return 0


def cancel(arguments: argparse.Namespace, errors: Console) -> int:
    with _client(arguments) as client:
        job = client.cancel(arguments.id)
    _show(arguments, job.raw, lambda: job_table(job))
    return 0


def delete(arguments: argparse.Namespace, errors: Console) -> int:
    with _client(arguments) as client:
        client.delete(arguments.id)
    return 0


def models(arguments: argparse.Namespace, errors: Console) -> int:
    with _client(arguments) as client:
        served = client.models()
    _show(arguments, [model.raw for model in served], lambda: models_table(served))
    return 0


def batch(arguments: argparse.Namespace, errors: Console) -> int:
    work = Batch(Path(arguments.source), Path(arguments.target), _options(arguments))
    tally = work.tally
    if tally.before:
        errors.print(f"{tally.before} of {tally.total} were done before", highlight=False)
    try:
        with bar(errors, "ranking") as progress:

            def tell(tally: BatchProgress) -> None:
                note = f"{tally.failed} failed" if tally.failed else ""
                progress.show(tally.before + tally.done, tally.total, note)

            asyncio.run(_run(arguments, work, tell))
    except BaseException:
        left = tally.total - tally.before - tally.done
        errors.print(f"{left} of {tally.total} are left; the same command goes on from here", highlight=False)
        raise
    done = tally.before + tally.done - tally.failed
    errors.print(f"{done} of {tally.total} ranked, {tally.failed} failed: {arguments.target}", highlight=False)
    return 1 if tally.failed else 0


async def _run(arguments: argparse.Namespace, work: Batch, tell: Callable[[BatchProgress], None]) -> None:
    async with AsyncClient(arguments.url, **_manner(arguments)) as client:
        await work.run(client, concurrency=arguments.concurrency, timeout_seconds=arguments.timeout, tell=tell)


def _client(arguments: argparse.Namespace) -> Client:
    return Client(arguments.url, **_manner(arguments))


def _manner(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"timeout_seconds": arguments.timeout, "retries": arguments.retries}


def _options(arguments: argparse.Namespace) -> Options:
    """Those that were given."""
    given = {name: getattr(arguments, name, None) for name in OPTIONS}
    return cast(Options, {name: value for name, value in given.items() if value is not None})


def _tell_of(arguments: argparse.Namespace, job: Job) -> int:
    _show(arguments, job.raw, lambda: job_table(job))
    return 1 if job.final and job.status != "succeeded" else 0


def _show(arguments: argparse.Namespace, raw: Any, table: Callable[[], Table]) -> None:
    if arguments.json:
        print_json(raw)
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=TABLE_WIDTH)
    console.print(table())
