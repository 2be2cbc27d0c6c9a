"""`python -m worker dead-letters`: lists, shows and retries shards that exceeded their retry budget."""

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
"""The deadline of a retried job; the same as that of a new one."""


def add_arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("list", help="one line each, newest first").set_defaults(run=_list)
    show = actions.add_parser("show", help="print the dead letters of a job as JSON")
    show.set_defaults(run=_show)
    show.add_argument("job", metavar="JOB")
    retry = actions.add_parser("retry", help="retry a failed job; finished shards are kept")
    retry.set_defaults(run=_retry)
    retry.add_argument("job", metavar="JOB")


def main(options: Namespace, settings: WorkerSettings) -> int:
    """Returns the exit status. Raises StoreUnavailable."""
    return asyncio.run(_with_client(options, settings))


async def _with_client(options: Namespace, settings: WorkerSettings) -> int:
    client = connect_async(settings.redis_url)
    run: Callable[[redis.asyncio.Redis, Namespace, WorkerSettings], Awaitable[int]] = options.run
    try:
        return await run(client, options, settings)
    finally:
        await client.aclose()


async def _read_letters(client: redis.asyncio.Redis) -> list[dict[str, Any]]:
    with store_errors():
        letters: list[Any] = await client.lrange(job_keys.DEAD_LETTERS, 0, -1)
    return [json.loads(letter) for letter in letters]


async def _list(client: redis.asyncio.Redis, _options: Namespace, _settings: WorkerSettings) -> int:
    for letter in await _read_letters(client):
        failed_at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(letter["at_ms"] / 1000))
        print(f"{failed_at}  {letter['model']}  {letter['job']}/{letter['shard']}  {letter['failure']['message']}")
    return 0


async def _show(client: redis.asyncio.Redis, options: Namespace, _settings: WorkerSettings) -> int:
    found = [letter for letter in await _read_letters(client) if letter["job"] == options.job]
    print(json.dumps(found, indent=2))
    return 0 if found else 1


async def _retry(client: redis.asyncio.Redis, options: Namespace, settings: WorkerSettings) -> int:
    ledger = JobLedger(client)
    record = await ledger.read(options.job)
    if record is None:
        print(f"worker: job {options.job!r} does not exist", file=sys.stderr)
        return 1
    wake_ups = await ledger.retry_failed(record, DEADLINE_SECONDS)
    if wake_ups is None:
        print(f"worker: the job is {record.status}, only one that failed or expired can be retried", file=sys.stderr)
        return 1
    builder = MessageBuilder(make_celery(settings.redis_url))
    name = queue_keys.queue_name(record.model, record.work_class)
    messages = [builder.build(name, wake_up.job_id, wake_up.shard) for wake_up in wake_ups]
    await ledger.enqueue(queue_keys.queue(record.model, record.work_class), messages)
    await _remove_letters(client, options.job)
    print(f"{options.job}: {len(wake_ups)} of {record.shards} shards are retried")
    return 0


async def _remove_letters(client: redis.asyncio.Redis, job_id: str) -> None:
    """Remove a job's dead letters from the list."""
    with store_errors():
        letters: list[Any] = await client.lrange(job_keys.DEAD_LETTERS, 0, -1)
        for letter in letters:
            if json.loads(letter)["job"] == job_id:
                await client.lrem(job_keys.DEAD_LETTERS, 1, letter)
