"""The commands of `python -m client`. Each returns the exit status."""

import argparse
from collections.abc import Callable
from typing import Any, cast

from rich.console import Console
from rich.table import Table

from client.blocking import Client
from client.documents import gather
from client.output import bar, job_table, models_table, print_json, ranking_table
from client.records import Job, Options, Ranking

OPTIONS = (
    *("model", "top_n", "instruction", "max_tokens_per_doc", "max_chunks_per_doc", "truncate", "priority"),
    "raw_scores",
)
TABLE_WIDTH = 100
"""The width of tables that are not printed to a terminal."""


def rank(arguments: argparse.Namespace, errors: Console) -> int:
    documents = gather(arguments.documents, arguments.file, arguments.format)
    with open_client(arguments) as client:
        ranking = client.rerank(arguments.query, documents, idempotency_key=arguments.key, **request_options(arguments))
    print_result(arguments, ranking.raw, lambda: ranking_table(ranking, documents))
    return 0


def submit(arguments: argparse.Namespace, errors: Console) -> int:
    documents = gather(arguments.documents, arguments.file, arguments.format)
    with open_client(arguments) as client:
        job = client.submit(arguments.query, documents, idempotency_key=arguments.key, **request_options(arguments))
    if arguments.json:
        print_json(job.raw)
    else:
        # Only the id, so that $(...) can capture it.
        print(job.id)
    return 0


def show(arguments: argparse.Namespace, errors: Console) -> int:
    with open_client(arguments) as client:
        return _print_job(arguments, client.job(arguments.id))


def wait(arguments: argparse.Namespace, errors: Console) -> int:
    with open_client(arguments) as client, bar(errors, "waiting") as progress:

        def show_progress(job: Job) -> None:
            progress.show(job.pairs_done, job.pairs_total, job.status)

        job = client.wait(arguments.id, on_progress=show_progress)
    return _print_job(arguments, job)


def results(arguments: argparse.Namespace, errors: Console) -> int:
    with open_client(arguments) as client:
        ranking: Ranking = client.results(arguments.id)
    print_result(arguments, ranking.raw, lambda: ranking_table(ranking))
    return 0


def cancel(arguments: argparse.Namespace, errors: Console) -> int:
    with open_client(arguments) as client:
        job = client.cancel(arguments.id)
    print_result(arguments, job.raw, lambda: job_table(job))
    return 0


def delete(arguments: argparse.Namespace, errors: Console) -> int:
    with open_client(arguments) as client:
        client.delete(arguments.id)
    return 0


def models(arguments: argparse.Namespace, errors: Console) -> int:
    with open_client(arguments) as client:
        served = client.models()
    print_result(arguments, [model.raw for model in served], lambda: models_table(served))
    return 0


def open_client(arguments: argparse.Namespace) -> Client:
    """A client with the options of the command line."""
    return Client(arguments.url, **client_options(arguments))


def client_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of both clients, without the address."""
    return {"timeout_seconds": arguments.timeout, "retries": arguments.retries}


def request_options(arguments: argparse.Namespace) -> Options:
    """The options that were given."""
    given = {name: getattr(arguments, name, None) for name in OPTIONS}
    if (url := getattr(arguments, "webhook", None)) is not None:
        given["webhook"] = {"url": url}
    return cast(Options, {name: value for name, value in given.items() if value is not None})


def _print_job(arguments: argparse.Namespace, job: Job) -> int:
    print_result(arguments, job.raw, lambda: job_table(job))
    return 1 if job.final and job.status != "succeeded" else 0


def print_result(arguments: argparse.Namespace, raw: Any, table: Callable[[], Table]) -> None:
    """Print the service's JSON with --json, otherwise the table."""
    if arguments.json:
        print_json(raw)
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=TABLE_WIDTH)
    console.print(table())
