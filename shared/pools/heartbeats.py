"""Heartbeats of workers in Redis: the state, throughput and start failures of each worker of a pool.

Each worker writes its own heartbeat; the API and the autoscaler read all. A heartbeat may be outdated, so it never
decides the state of a job. The measured start time, the throughput and the precision are stored apart, and remain when
no worker runs.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

import redis
from pydantic import ConfigDict, TypeAdapter, ValidationError

from shared.keys import pool_keys
from shared.store.scripts import script_source

INTERVAL_SECONDS = 2.0
STALE_SECONDS = 10.0
"""A worker without a heartbeat for this long counts as dead. Five intervals: a busy machine may delay some."""
FAILURE_SECONDS = 300.0
"""How long a failed start makes the API reject requests, with its reason."""
_HASH_SECONDS = 3600
"""Also how long a failed start counts for the backoff, unless a worker becomes ready earlier."""
_MEASUREMENT_SECONDS = 30 * 86_400


class WorkerState(StrEnum):
    """The state of a worker. A draining worker finishes its shards and claims no more."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The last heartbeat of one worker. Times are Unix seconds by the worker's clock, 0 when not reached yet.

    `reason` explains a failed start. `held` is the number of claimed shards. `tokens_per_second` is the throughput in
    estimated tokens, ignoring idle time; None until it is measured. `dtype` is the precision of the scores, such as
    float32; None before the model is loaded, and for an engine without one.
    """

    worker: str
    state: WorkerState
    at: float
    reason: str = ""
    started_at: float = 0.0
    ready_at: float = 0.0
    held: int = 0
    tokens_per_second: float | None = None
    dtype: str | None = None
    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    def alive(self, now: float) -> bool:
        return self.state is not WorkerState.FAILED and now - self.at < STALE_SECONDS

    def recent_failure(self, now: float) -> bool:
        return self.state is WorkerState.FAILED and now - self.at < FAILURE_SECONDS


@dataclass(frozen=True, slots=True)
class PoolHealth:
    """The workers of one pool, counted by state. `failure` is the reason of the last recent failed start."""

    ready: int
    starting: int
    failure: str | None
    draining: int = 0

    @property
    def down(self) -> bool:
        """Whether no worker is ready or starting, and the last start failed."""
        return not self.ready and not self.starting and self.failure is not None


def worker_name(pid: int | None = None) -> str:
    """The worker name of a process on this host, by default of this process."""
    return f"{socket.gethostname()}-{os.getpid() if pid is None else pid}"


def summarize(fields: Mapping[bytes, bytes], now: float) -> PoolHealth:
    """Summarize the heartbeat hash of one pool at Unix time `now`."""
    beats = read_heartbeats(fields)
    states = [beat.state for beat in beats if beat.alive(now)]
    failures = sorted((beat for beat in beats if beat.recent_failure(now)), key=lambda beat: beat.at)
    return PoolHealth(
        ready=states.count(WorkerState.READY),
        starting=states.count(WorkerState.STARTING),
        draining=states.count(WorkerState.DRAINING),
        failure=failures[-1].reason if failures else None,
    )


def read_heartbeats(fields: Mapping[bytes, bytes]) -> list[Heartbeat]:
    """The heartbeats in the hash of one pool. Skips those that cannot be parsed, for instance from another version."""
    return [beat for payload in fields.values() if (beat := _decode(payload)) is not None]


_HEARTBEAT = TypeAdapter(Heartbeat)


def _decode(payload: bytes) -> Heartbeat | None:
    try:
        return _HEARTBEAT.validate_json(payload)
    except ValidationError:
        return None


class HeartbeatWriter:
    """Writes the heartbeats of one worker, and removes stale ones of its pool. Raises redis.RedisError.

    When a worker process dies before it is ready, its parent writes the failure under the worker's name (see
    `worker_name`).
    """

    def __init__(self, client: redis.Redis, model: str, worker: str, started_at: float | None = None) -> None:
        """`started_at`: the start of the worker process in Unix seconds, by default now."""
        self._client = client
        self._key = pool_keys.workers(model)
        self._measurements_key = pool_keys.measurements(model)
        self._write: Any = client.register_script(script_source("heartbeat"))
        began = time.time() if started_at is None else started_at
        self._beat = Heartbeat(worker=worker, state=WorkerState.STARTING, at=0.0, started_at=began)

    def beat(
        self,
        state: WorkerState,
        reason: str = "",
        *,
        held: int = 0,
        tokens_per_second: float | None = None,
        dtype: str | None = None,
    ) -> None:
        """Write a heartbeat, and store the measured start time and throughput, and a ready worker's precision."""
        now = time.time()
        measurements: dict[str, float | str] = {}
        beat = replace(
            self._beat,
            state=state,
            at=now,
            reason=reason,
            held=held,
            tokens_per_second=tokens_per_second,
            dtype=dtype,
        )
        if state is WorkerState.READY:
            # With every heartbeat: the score cache needs it again after Redis was emptied.
            measurements["dtype"] = dtype or ""
        if state is WorkerState.READY and not beat.ready_at:
            beat = replace(beat, ready_at=now)
            measurements["start_seconds"] = round(now - beat.started_at, 3)
        if tokens_per_second is not None:
            measurements["tokens_per_second"] = round(tokens_per_second, 3)
        fields = [part for field in measurements.items() for part in field]
        self._write(
            keys=[self._key, self._measurements_key],
            args=[beat.worker, json.dumps(asdict(beat)), _HASH_SECONDS, _MEASUREMENT_SECONDS, *fields],
        )
        # Only after a successful write, so that the next heartbeat repeats measurements that a failed write lost.
        self._beat = beat

    def fail(self, reason: str) -> None:
        """Record that this worker failed to start, and remove failures that no longer count."""
        self.beat(WorkerState.FAILED, reason)
        now = time.time()
        self._remove(lambda beat: beat is None or (beat.state is WorkerState.FAILED and now - beat.at >= _HASH_SECONDS))

    def remove_stale(self) -> list[Heartbeat]:
        """Remove the heartbeats of dead and failed workers. Returns those of the other live workers.

        A worker calls this when it is ready, which also resets the count of failed starts.
        """
        now = time.time()
        remaining = self._remove(lambda beat: beat is None or not beat.alive(now))
        return [beat for beat in remaining if beat.worker != self._beat.worker]

    def leave(self) -> None:
        """Remove this worker's heartbeat."""
        self._client.hdel(self._key, self._beat.worker)

    def _remove(self, is_unwanted: Callable[[Heartbeat | None], bool]) -> list[Heartbeat]:
        fields: Mapping[bytes, bytes] = self._client.hgetall(self._key)  # type: ignore[assignment]
        beats = {name: _decode(payload) for name, payload in fields.items()}
        names = [name for name, beat in beats.items() if is_unwanted(beat)]
        if names:
            self._client.hdel(self._key, *names)
        return [beat for name, beat in beats.items() if beat is not None and name not in names]
