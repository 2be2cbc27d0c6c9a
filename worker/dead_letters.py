"""`python -m worker dead`: the shards that failed over their budget, for an operator to read and to try again."""

import asyncio
import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio

from shared.keys import job_keys, queue_keys
from shared.ledger.job_ledger import JobLedger
from shared.queue.celery_app import make_celery
from shared.queue.messages import MessageBuilder
from shared.store.client import connect_async, store_errors
from worker.settings import WorkerSettings

DEADLINE_SECONDS = 86_400.0
"""What a job that is tried again gets, as a new one would."""


def add_arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("list", help="a line each, the newest first").set_defaults(run=_list)
    show = actions.add_parser("show", help="all that is known of one job's dead shards, as JSON")
    show.set_defaults(run=_show)
    show.add_argument("job", metavar="JOB")
    retry = actions.add_parser("retry", help="try a failed job again: what is done stays done, budgets start over")
    retry.set_defaults(run=_retry)
    retry.add_argument("job", metavar="JOB")


def main(options: Namespace, settings: WorkerSettings) -> int:
    """Answers the exit status. Raises StoreUnavailable."""
    return asyncio.run(_with_client(options, settings))


async def _with_client(options: Namespace, settings: WorkerSettings) -> int:
    client = connect_async(settings.redis_url)
    run: Callable[[redis.asyncio.Redis, Namespace, WorkerSettings], Awaitable[int]] = options.run
    try:
        return await run(client, options, settings)
    finally:
        await client.aclose()


async def _notes(client: redis.asyncio.Redis) -> list[dict[str, Any]]:
    with store_errors():
        notes: list[Any] = await client.lrange(job_keys.DEAD_LETTERS, 0, -1)
    return [json.loads(note) for note in notes]


async def _list(client: redis.asyncio.Redis, _options: Namespace, _settings: WorkerSettings) -> int:
    for note in await _notes(client):
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(note["at_ms"] / 1000))
        print(f"{at}  {note['model']}  {note['job']}/{note['shard']}  {note['failure']['message']}")
    return 0


async def _show(client: redis.asyncio.Redis, options: Namespace, _settings: WorkerSettings) -> int:
    found = [note for note in await _notes(client) if note["job"] == options.job]
    print(json.dumps(found, indent=2))
    return 0 if found else 1


async def _retry(client: redis.asyncio.Redis, options: Namespace, settings: WorkerSettings) -> int:
    ledger = JobLedger(client)
    record = await ledger.read(options.job)
    if record is None:
        print(f"worker: there is no job {options.job!r} any more", file=sys.stderr)
        return 1
    rings = await ledger.retry_failed(record, DEADLINE_SECONDS)
    if rings is None:
        print(f"worker: the job is {record.status}, only a failed one can be tried again", file=sys.stderr)
        return 1
    builder = MessageBuilder(make_celery(settings.redis_url))
    name = queue_keys.queue_name(record.model, record.work_class)
    messages = [builder.build(name, ring.job_id, ring.shard) for ring in rings]
    await ledger.enqueue(queue_keys.queue(record.model, record.work_class), messages)
    await _strike_out(client, options.job)
    print(f"{options.job}: {len(rings)} of {record.shards} shards are tried again")
    return 0


async def _strike_out(client: redis.asyncio.Redis, job_id: str) -> None:
    """Take a job's notes off the list."""
    with store_errors():
        notes: list[Any] = await client.lrange(job_keys.DEAD_LETTERS, 0, -1)
        for note in notes:
            if json.loads(note)["job"] == job_id:
                await client.lrem(job_keys.DEAD_LETTERS, 1, note)
