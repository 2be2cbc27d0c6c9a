"""Workers' heartbeats: how everybody knows which models have a worker, how fast it is, and why one has not.

A heartbeat is a hint with an age, never the truth about a job. A worker writes its own; anybody reads all. What a
worker has measured of itself is kept beside them, for the time when there is none.
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
"""A worker that was silent for this long is taken for gone. Five beats: a busy machine may swallow some."""
FAILURE_SECONDS = 300.0
"""How long the reason of a failed start is told to callers."""
_HASH_SECONDS = 3600
"""Also how long a failed start counts: until a worker is ready, at most."""
_MEASURED_SECONDS = 30 * 86_400


class WorkerState(StrEnum):
    """Where a worker stands. One that drains goes on with what it has, and takes nothing new."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One worker's last word. Times are Unix seconds of its own clock, 0 where not yet.

    `reason` says why a failed one failed. `held` is how many shards it has in hand; `tokens_per_second`, None until it
    is known, how many estimated tokens it gets done while it has any.
    """

    worker: str
    state: WorkerState
    at: float
    reason: str = ""
    started_at: float = 0.0
    ready_at: float = 0.0
    held: int = 0
    tokens_per_second: float | None = None
    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    def alive(self, now: float) -> bool:
        return self.state is not WorkerState.FAILED and now - self.at < STALE_SECONDS

    def recent_failure(self, now: float) -> bool:
        return self.state is WorkerState.FAILED and now - self.at < FAILURE_SECONDS


@dataclass(frozen=True, slots=True)
class PoolHealth:
    """What the heartbeats of one model's workers add up to. `failure` is the last failed start's reason."""

    ready: int
    starting: int
    failure: str | None
    draining: int = 0

    @property
    def down(self) -> bool:
        """No worker is up or coming, and the last one that tried has failed."""
        return not self.ready and not self.starting and self.failure is not None


def worker_name(pid: int | None = None) -> str:
    """The name of a worker process of this host, by default of this process."""
    return f"{socket.gethostname()}-{os.getpid() if pid is None else pid}"


def summarize(fields: Mapping[bytes, bytes], now: float) -> PoolHealth:
    """Add up the heartbeats of one pool's hash at Unix time `now`."""
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
    """The heartbeats in one pool's hash; one that another version wrote and this one cannot read is left out."""
    return [beat for payload in fields.values() if (beat := _decode(payload)) is not None]


_HEARTBEAT = TypeAdapter(Heartbeat)


def _decode(payload: bytes) -> Heartbeat | None:
    try:
        return _HEARTBEAT.validate_json(payload)
    except ValidationError:
        return None


class HeartbeatWriter:
    """Writes one worker's heartbeats, and clears away those of workers long gone. Raises redis.RedisError.

    Whoever started a worker that died before it was ready writes its failure in its name (see `worker_name`).
    """

    def __init__(self, client: redis.Redis, model: str, worker: str, started_at: float | None = None) -> None:
        """`started_at`: when the worker's process began, Unix seconds; by default now."""
        self._client = client
        self._key = pool_keys.workers(model)
        self._measured_key = pool_keys.measurements(model)
        self._write: Any = client.register_script(script_source("heartbeat"))
        began = time.time() if started_at is None else started_at
        self._beat = Heartbeat(worker=worker, state=WorkerState.STARTING, at=0.0, started_at=began)

    def beat(
        self, state: WorkerState, reason: str = "", *, held: int = 0, tokens_per_second: float | None = None
    ) -> None:
        """Say where this worker stands, and what it has measured."""
        now = time.time()
        measured: dict[str, float] = {}
        beat = replace(self._beat, state=state, at=now, reason=reason, held=held, tokens_per_second=tokens_per_second)
        if state is WorkerState.READY and not beat.ready_at:
            beat = replace(beat, ready_at=now)
            measured["start_seconds"] = round(now - beat.started_at, 3)
        if tokens_per_second is not None:
            measured["tokens_per_second"] = round(tokens_per_second, 3)
        fields = [part for field in measured.items() for part in field]
        self._write(
            keys=[self._key, self._measured_key],
            args=[beat.worker, json.dumps(asdict(beat)), _HASH_SECONDS, _MEASURED_SECONDS, *fields],
        )
        # Only now: a first word that was not heard is said again.
        self._beat = beat

    def fail(self, reason: str) -> None:
        """Say that this worker could not start. Failures that count no more are removed."""
        self.beat(WorkerState.FAILED, reason)
        now = time.time()
        self._remove(lambda beat: beat is None or (beat.state is WorkerState.FAILED and now - beat.at >= _HASH_SECONDS))

    def forget_others(self) -> list[Heartbeat]:
        """Remove what nobody needs any more: silent workers, and failures that a ready worker has outlived.

        Answers the other workers' heartbeats that are left.
        """
        now = time.time()
        left = self._remove(lambda beat: beat is None or not beat.alive(now))
        return [beat for beat in left if beat.worker != self._beat.worker]

    def leave(self) -> None:
        """Remove this worker."""
        self._client.hdel(self._key, self._beat.worker)

    def _remove(self, unwanted: Callable[[Heartbeat | None], bool]) -> list[Heartbeat]:
        fields: Mapping[bytes, bytes] = self._client.hgetall(self._key)  # type: ignore[assignment]
        beats = {name: _decode(payload) for name, payload in fields.items()}
        names = [name for name, beat in beats.items() if unwanted(beat)]
        if names:
            self._client.hdel(self._key, *names)
        return [beat for name, beat in beats.items() if beat is not None and name not in names]
