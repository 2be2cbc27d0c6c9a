"""Reads the load, the workers and the measurements of all pools from Redis in one round trip.

The ledger's scripts count the load (store/lua/_common.lua); the workers write heartbeats. Decides nothing: see
shared.pools.scaling.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis
import redis.asyncio

from shared.contracts import WorkClass
from shared.keys import pool_keys
from shared.pools.heartbeats import Heartbeat, WorkerState, read_heartbeats


@dataclass(frozen=True, slots=True)
class ClassLoad:
    """The unfinished work of one class, with the lines of batches that are no jobs yet. Tokens are estimates.

    Pairs and tokens are `running` while a worker holds a lease on their shard, and `queued` otherwise. `running_jobs`
    counts those of the `jobs` of which a worker has claimed a shard.
    """

    jobs: int = 0
    queued_pairs: int = 0
    queued_tokens: int = 0
    running_pairs: int = 0
    running_tokens: int = 0
    running_jobs: int = 0

    @property
    def queued_jobs(self) -> int:
        """Jobs of which no shard was claimed yet."""
        return self.jobs - self.running_jobs


@dataclass(frozen=True, slots=True)
class PoolSignals:
    """The present state of one pool. None means not measured, or measured too long ago.

    `oldest_seconds`: age of the oldest unfinished job, 0 without one. `idle_seconds`: time since a job was submitted or
    ended. `shards`: number of shards not done, which KEDA's redis trigger reads, too.
    `busy_workers`: workers that held a shard at their last heartbeat. `failures`: failed starts since a worker was last
    ready, where concurrent ones count once; `failed_at` (Unix seconds) and `failure` (reason) describe the last one.
    `tokens_per_second`: throughput of one worker, ignoring idle time. `start_seconds`: time from the start of a worker
    process until it was ready. `workers`: last heartbeats of the live workers. `dtype`: the precision of most loaded
    workers, or of the last one; None for an engine without one.
    """

    model: str
    interactive: ClassLoad
    batch: ClassLoad
    oldest_seconds: float
    idle_seconds: float | None
    shards: int
    starting: int
    ready: int
    draining: int
    busy_workers: frozenset[str] = frozenset()
    failures: int = 0
    failed_at: float | None = None
    failure: str | None = None
    tokens_per_second: float | None = None
    start_seconds: float | None = None
    workers: tuple[Heartbeat, ...] = ()
    dtype: str | None = None


async def read_signals(client: redis.asyncio.Redis, models: Sequence[str], now: float) -> dict[str, PoolSignals]:
    """The signals of each model's pool at Unix time `now`. Raises redis.RedisError or OSError."""
    async with client.pipeline(transaction=False) as pipe:
        _queue_reads(pipe, models)
        return _parse_replies(models, await pipe.execute(), now)


def read_signals_blocking(client: redis.Redis, models: Sequence[str], now: float) -> dict[str, PoolSignals]:
    """`read_signals` for a blocking client."""
    with client.pipeline(transaction=False) as pipe:
        _queue_reads(pipe, models)
        return _parse_replies(models, pipe.execute(), now)


def _queue_reads(pipe: Any, models: Sequence[str]) -> None:
    # Jobs have timestamps of Redis's clock, so their ages are computed with it too.
    pipe.time()
    for model in models:
        for work_class in WorkClass:
            pipe.zcard(pool_keys.open_jobs(model, work_class))
            pipe.zrange(pool_keys.open_jobs(model, work_class), 0, 0, withscores=True)
            pipe.zrange(pool_keys.open_jobs(model, work_class), -1, -1, withscores=True)
        pipe.hgetall(pool_keys.load(model))
        pipe.zcard(pool_keys.outstanding(model))
        pipe.hgetall(pool_keys.workers(model))
        pipe.hgetall(pool_keys.measurements(model))
        pipe.hvals(pool_keys.unpublished(model))


def _parse_replies(models: Sequence[str], replies: Sequence[Any], now: float) -> dict[str, PoolSignals]:
    remaining = iter(replies)
    seconds, microseconds = next(remaining)
    redis_now = int(seconds) + int(microseconds) / 1e6
    return {model: _parse_pool(model, remaining, redis_now, now) for model in models}


def _parse_pool(model: str, replies: Iterator[Any], redis_now: float, now: float) -> PoolSignals:
    jobs: dict[WorkClass, int] = {}
    accepted_at: list[float] = []
    for work_class in WorkClass:
        jobs[work_class] = next(replies)
        accepted_at += [at_ms / 1000 for _ in ("oldest", "newest") for _, at_ms in next(replies)]
    load, shards, heartbeats, measurements, unpublished = (next(replies) for _ in range(5))
    workers = read_heartbeats(heartbeats)
    alive = tuple(beat for beat in workers if beat.alive(now))
    states = [beat.state for beat in alive]
    failures = sorted((beat for beat in workers if beat.state is WorkerState.FAILED), key=lambda beat: beat.at)
    ended_ms = _number(load, b"ended_ms")
    active_at = accepted_at + ([] if ended_ms is None else [ended_ms / 1000])
    return PoolSignals(
        model=model,
        interactive=_class_load(WorkClass.INTERACTIVE, jobs, load),
        batch=_with_unpublished(_class_load(WorkClass.BATCH, jobs, load), unpublished),
        oldest_seconds=max(0.0, redis_now - min(accepted_at)) if accepted_at else 0.0,
        idle_seconds=max(0.0, redis_now - max(active_at)) if active_at else None,
        shards=shards,
        starting=states.count(WorkerState.STARTING),
        ready=states.count(WorkerState.READY),
        draining=states.count(WorkerState.DRAINING),
        busy_workers=frozenset(beat.worker for beat in alive if beat.held),
        failures=_count_attempts(failures),
        failed_at=failures[-1].at if failures else None,
        failure=failures[-1].reason if failures else None,
        tokens_per_second=_throughput(alive, measurements),
        start_seconds=_number(measurements, b"start_seconds"),
        workers=alive,
        dtype=_dtype(alive, measurements),
    )


def _class_load(work_class: WorkClass, jobs: Mapping[WorkClass, int], load: Mapping[bytes, bytes]) -> ClassLoad:
    def count(name: str) -> int:
        return int(_number(load, f"{work_class}:{name}".encode()) or 0)

    return ClassLoad(
        jobs=jobs[work_class],
        queued_pairs=count("pairs") - count("running_pairs"),
        queued_tokens=count("tokens") - count("running_tokens"),
        running_pairs=count("running_pairs"),
        running_tokens=count("running_tokens"),
        running_jobs=count("running_jobs"),
    )


def _with_unpublished(load: ClassLoad, batches: Sequence[bytes]) -> ClassLoad:
    """The load with the lines of batches that are no jobs yet: "pairs tokens" of each batch."""
    pairs = tokens = 0
    for text in batches:
        counts = text.split()
        if len(counts) == 2 and all(count.isdigit() for count in counts):
            pairs, tokens = pairs + int(counts[0]), tokens + int(counts[1])
    return replace(load, queued_pairs=load.queued_pairs + pairs, queued_tokens=load.queued_tokens + tokens)


def _count_attempts(failures: Sequence[Heartbeat]) -> int:
    """The number of failed attempts to start. Starts that overlap count as one: they share the cause of the failure."""
    attempts, failed_at = 0, 0.0
    for beat in failures:
        if not beat.started_at or beat.started_at >= failed_at:
            attempts, failed_at = attempts + 1, beat.at
    return attempts


def _throughput(alive: Sequence[Heartbeat], measurements: Mapping[bytes, bytes]) -> float | None:
    """The mean of the live workers that have measured it, otherwise the last stored measurement."""
    rates = [beat.tokens_per_second for beat in alive if beat.tokens_per_second is not None]
    return sum(rates) / len(rates) if rates else _number(measurements, b"tokens_per_second")


def _dtype(alive: Sequence[Heartbeat], measurements: Mapping[bytes, bytes]) -> str | None:
    """The precision of most live workers that have loaded the model, otherwise the last stored one.

    Sorted, so that every process chooses the same one of two that are equally frequent.
    """
    found = sorted(beat.dtype or "" for beat in alive if beat.state is not WorkerState.STARTING)
    stored = measurements.get(b"dtype", b"").decode(errors="replace")
    return (max(found, key=found.count) if found else stored) or None


def _number(fields: Mapping[bytes, bytes], name: bytes) -> float | None:
    """The field as a finite number, otherwise None: a damaged field must not make the reader fail."""
    try:
        value = float(fields[name])
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) else None
