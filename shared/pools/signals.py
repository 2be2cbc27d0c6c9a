"""What can be seen of the pools: their load, their workers, what these have measured. Read in one round trip.

The load is counted by the ledger's scripts as it changes (lua/_common.lua), the workers are their own heartbeats.
Decides nothing: see shared.pools.scaling.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio

from shared.contracts import WorkClass
from shared.keys import pool_keys
from shared.pools.heartbeats import Heartbeat, WorkerState, read_heartbeats


@dataclass(frozen=True, slots=True)
class ClassLoad:
    """The work of one class that has not ended; tokens as shared.sharding estimates them.

    `running_jobs` of the `jobs` were begun. `running` pairs and tokens are in a worker's hands, `queued` ones in
    nobody's.
    """

    jobs: int = 0
    queued_pairs: int = 0
    queued_tokens: int = 0
    running_pairs: int = 0
    running_tokens: int = 0
    running_jobs: int = 0

    @property
    def queued_jobs(self) -> int:
        """Jobs of which nothing was begun."""
        return self.jobs - self.running_jobs


@dataclass(frozen=True, slots=True)
class PoolSignals:
    """One pool, as it is now. What is None was never measured, or so long ago that it is forgotten.

    `oldest_seconds`: since the oldest job that has not ended came, 0 when there is none. `idle_seconds`: since a job
    last came or ended. `shards`: those not done, the number that KEDA's redis trigger reads.
    `busy_workers` had something in hand at their last heartbeat. `failures`: starts that failed since a worker was
    ready, those side by side counted once; `failed_at`, Unix seconds, and `failure` tell of the last one.
    `tokens_per_second`: what one worker gets done while it has something to do. `start_seconds`: from a worker's first
    breath until it was ready. `workers`: the last words of those alive.
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


async def read_signals(client: redis.asyncio.Redis, models: Sequence[str], now: float) -> dict[str, PoolSignals]:
    """Every pool's signals at Unix time `now`. Raises redis.RedisError or OSError."""
    async with client.pipeline(transaction=False) as pipe:
        _ask(pipe, models)
        return _understand(models, await pipe.execute(), now)


def read_signals_blocking(client: redis.Redis, models: Sequence[str], now: float) -> dict[str, PoolSignals]:
    """The same for who has no event loop; blocks. Raises redis.RedisError or OSError."""
    with client.pipeline(transaction=False) as pipe:
        _ask(pipe, models)
        return _understand(models, pipe.execute(), now)


def _ask(pipe: Any, models: Sequence[str]) -> None:
    # Jobs are timed by Redis's clock, so their ages are taken by it too.
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


def _understand(models: Sequence[str], answers: Sequence[Any], now: float) -> dict[str, PoolSignals]:
    rest = iter(answers)
    seconds, microseconds = next(rest)
    return {model: _read_pool(model, rest, int(seconds) + int(microseconds) / 1e6, now) for model in models}


def _read_pool(model: str, answers: Iterator[Any], redis_now: float, now: float) -> PoolSignals:
    jobs: dict[WorkClass, int] = {}
    came: list[float] = []
    for work_class in WorkClass:
        jobs[work_class] = next(answers)
        came += [at_ms / 1000 for _ in ("the oldest", "the newest") for _, at_ms in next(answers)]
    load, shards, beats, measured = (next(answers) for _ in range(4))
    workers = read_heartbeats(beats)
    alive = tuple(beat for beat in workers if beat.alive(now))
    states = [beat.state for beat in alive]
    failures = sorted((beat for beat in workers if beat.state is WorkerState.FAILED), key=lambda beat: beat.at)
    ended_ms = _number(load, b"ended_ms")
    changed = came + ([] if ended_ms is None else [ended_ms / 1000])
    return PoolSignals(
        model=model,
        interactive=_load_of(WorkClass.INTERACTIVE, jobs, load),
        batch=_load_of(WorkClass.BATCH, jobs, load),
        oldest_seconds=max(0.0, redis_now - min(came)) if came else 0.0,
        idle_seconds=max(0.0, redis_now - max(changed)) if changed else None,
        shards=shards,
        starting=states.count(WorkerState.STARTING),
        ready=states.count(WorkerState.READY),
        draining=states.count(WorkerState.DRAINING),
        busy_workers=frozenset(beat.worker for beat in alive if beat.held),
        failures=_count_tries(failures),
        failed_at=failures[-1].at if failures else None,
        failure=failures[-1].reason if failures else None,
        tokens_per_second=_rate(alive, measured),
        start_seconds=_number(measured, b"start_seconds"),
        workers=alive,
    )


def _load_of(work_class: WorkClass, jobs: Mapping[WorkClass, int], load: Mapping[bytes, bytes]) -> ClassLoad:
    def count(what: str) -> int:
        return int(_number(load, f"{work_class}:{what}".encode()) or 0)

    return ClassLoad(
        jobs=jobs[work_class],
        queued_pairs=count("pairs") - count("running_pairs"),
        queued_tokens=count("tokens") - count("running_tokens"),
        running_pairs=count("running_pairs"),
        running_tokens=count("running_tokens"),
        running_jobs=count("running_jobs"),
    )


def _count_tries(failures: Sequence[Heartbeat]) -> int:
    """How often starting has failed. Starts that ran side by side were one try: what fails one, fails all."""
    tries, over_at = 0, 0.0
    for beat in failures:
        if not beat.started_at or beat.started_at >= over_at:
            tries, over_at = tries + 1, beat.at
    return tries


def _rate(alive: Sequence[Heartbeat], measured: Mapping[bytes, bytes]) -> float | None:
    """The mean of those who know, else what the last one knew."""
    rates = [beat.tokens_per_second for beat in alive if beat.tokens_per_second is not None]
    return sum(rates) / len(rates) if rates else _number(measured, b"tokens_per_second")


def _number(fields: Mapping[bytes, bytes], name: bytes) -> float | None:
    """None where it is not there, or no number: these are signals, and nobody is to fail of one."""
    try:
        value = float(fields[name])
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) else None
