"""`make bench-store`: measures the time and memory that a job takes in Redis, for each script of the ledger.

Uses the ledger alone, without a model, an API or a worker, on a Redis server of its own; takes 10 s. Redis runs scripts
on one thread, so its time per job bounds the throughput of all APIs and workers together.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import redis
import redis.asyncio

from bench import machine
from bench.words import VOCABULARY_SIZE, Words
from infra.local.redis_server import start_redis
from shared.contracts import Document, RerankRequest, ScoreScale, ShardScores, WorkClass
from shared.keys import queue_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.submission import Submission
from shared.ledger.verdicts import ClaimRequest, FreeSlots, ShardLease
from shared.ledger.worker_ledger import WorkerLedger
from shared.models import ModelSpec
from shared.processes import stop_all
from shared.queue.celery_app import make_celery
from shared.queue.messages import MessageBuilder
from shared.score_cache import ScoreWriter
from shared.sharding import ShardSize, shard_sizes

MODEL = "model"
DOCUMENTS, WORDS = 20, 100
Item = TypeVar("Item")
_AT_ONCE = 50
"""The number of jobs that share a round trip, so that neither side waits for the other."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one step of a job: microseconds of Redis's time, and bytes by which its memory grew."""

    step: str
    microseconds: float
    bytes: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.store_costs", description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=2000, help="jobs of each kind; default: %(default)s")
    parser.add_argument("--scores", type=int, default=100_000, help="scores to cache; default: %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        child, url = start_redis(Path(folder), os.environ)
        try:
            with redis.Redis.from_url(url) as client:
                job_costs = [
                    (shards, asyncio.run(measure_jobs(url, client, options.jobs, shards))) for shards in (1, 4)
                ]
                cached = measure_scores(client, options.scores)
        finally:
            stop_all([child], grace_seconds=5)
    print(f"{options.jobs:,} jobs of {DOCUMENTS} documents of {WORDS} words; {json.dumps(machine.describe())}")
    for shards, costs in job_costs:
        report(f"a job of {'one shard' if shards == 1 else f'{shards} shards'}", costs)
    report(f"a cached score, of {options.scores:,}", [cached])
    return 0


async def measure_jobs(url: str, client: redis.Redis, jobs: int, shards: int) -> list[Cost]:
    """Submit, claim, renew and finish jobs, one step at a time for all of them."""
    submissions = make_submissions(url, jobs, shards)
    leases: list[ShardLease] = []
    scores = ShardScores(scores=[0.1234567891] * (DOCUMENTS // shards), scale=ScoreScale.LOGIT)
    worker = WorkerLedger(client, MODEL, lease_seconds=600)

    async def submit() -> None:
        async with redis.asyncio.Redis.from_url(url) as connection:
            ledger = JobLedger(connection)
            for some in batches(submissions):
                await asyncio.gather(*(ledger.submit(submission) for submission in some))

    await submit()  # Loads the scripts; not measured.
    client.flushdb()
    before, began = used(client), spent(client)
    await submit()
    costs = [Cost("submit", (spent(client) - began) / jobs, (used(client) - before) / jobs)]

    def claim(some: Sequence[object]) -> None:
        slots = FreeSlots(len(some), 0)
        _, claimed = worker.finish_and_claim([], ClaimRequest("worker", f"token{len(leases)}", slots))
        leases.extend(shard.lease for shard in claimed)

    def renew(some: Sequence[int]) -> None:
        worker.renew([leases[number] for number in some])

    def finish(some: Sequence[int]) -> None:
        worker.finish_and_claim([(leases[number], scores, WorkClass.INTERACTIVE) for number in some], None)

    steps: dict[str, Callable[[Sequence[int]], object]] = {"claim": claim, "renew": renew, "finish": finish}
    for step, run in steps.items():
        before, began = used(client), spent(client)
        for some in batches(range(jobs * shards)):
            run(some)
        costs.append(Cost(step, (spent(client) - began) / jobs, (used(client) - before) / jobs))
    client.flushdb()
    return costs


def measure_scores(client: redis.Redis, count: int) -> Cost:
    """Cache scores, each of a different text."""
    writer = ScoreWriter(client, ModelSpec(name=MODEL, source="source"), dtype=None, seconds=600, entries=count)
    texts = [f"text {number}" for number in range(count)]
    made = [
        (
            RerankRequest(query="a query", documents=[Document(text=text) for text in some]),
            ShardScores(scores=[0.1234567891] * len(some), scale=ScoreScale.LOGIT),
        )
        for some in batches(texts)
    ]
    before, began = allocated(client), spent(client)
    writer.write_all(made)
    return Cost("cache", (spent(client) - began) / count, (allocated(client) - before) / count)


def make_submissions(url: str, jobs: int, shards: int) -> list[Submission]:
    """Return jobs as the API builds them, with distinct texts."""
    words = Words([f"word{number}" for number in range(VOCABULARY_SIZE)], seed=1)
    messages = MessageBuilder(make_celery(url))
    queue = queue_keys.queue_name(MODEL, WorkClass.INTERACTIVE)
    made: list[Submission] = []
    for number in range(jobs):
        query = words.query(number).decode()
        texts = [text.decode() for text in words.documents(number, DOCUMENTS, WORDS)]
        each = shard_sizes(query, texts[:1], None)[0].tokens
        sizes = [ShardSize(DOCUMENTS // shards, each * DOCUMENTS // shards)] * shards
        job_id = f"job-{number:032}"
        made.append(
            Submission(
                job_id=job_id,
                request=RerankRequest(query=query, documents=[Document(text=text) for text in texts]),
                model=MODEL,
                dialect="superset",
                owner="owner",
                work_class=WorkClass.INTERACTIVE,
                sizes=sizes,
                messages=[messages.build(queue, job_id, shard) for shard in range(len(sizes))],
                deadline_seconds=600,
            )
        )
    return made


def batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Split into batches of _AT_ONCE items, in order."""
    return (items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE))


def spent(client: redis.Redis) -> float:
    """Return the microseconds that Redis has spent in scripts so far."""
    stats: Any = client.info("commandstats")
    return float(sum(stats.get(name, {}).get("usec", 0) for name in ("cmdstat_evalsha", "cmdstat_eval")))


def used(client: redis.Redis) -> int:
    """Return the bytes of all keys and their values according to MEMORY USAGE; excludes buffers."""
    total = 0
    for names in batches(list(client.scan_iter(count=1000))):
        with client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.memory_usage(name, samples=0)
            total += sum(pipe.execute())
    return total


def allocated(client: redis.Redis) -> int:
    """Return the bytes that Redis has allocated; for many small keys, this includes the size of its hash tables."""
    memory: Any = client.info("memory")
    return int(memory["used_memory"])


def report(title: str, costs: Sequence[Cost]) -> None:
    print(f"\n{title:32}{'us of Redis':>12}{'bytes':>10}")
    for cost in costs:
        print(f"{cost.step:32}{cost.microseconds:12.1f}{cost.bytes:10.0f}")
    if len(costs) > 1:
        print(f"{'total':32}{sum(cost.microseconds for cost in costs):12.1f}{sum(cost.bytes for cost in costs):10.0f}")


if __name__ == "__main__":
    sys.exit(main())
