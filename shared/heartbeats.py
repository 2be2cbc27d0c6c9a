"""Workers' heartbeats: how the API knows which models have a worker, and why one has not.

A heartbeat is a hint with an age, never the truth about a job. A worker writes its own; anybody reads all.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

import redis

from shared import keys

INTERVAL_SECONDS = 2.0
STALE_SECONDS = 10.0
"""A worker that was silent for this long is taken for gone. Five beats: a busy machine may swallow some."""
FAILURE_SECONDS = 300.0
"""How long the reason of a failed start is remembered."""
_HASH_SECONDS = 3600


class WorkerState(StrEnum):
    """Where a worker stands."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One worker's last word. `at` is Unix seconds; `reason` says why a failed one failed."""

    worker: str
    state: WorkerState
    at: float
    reason: str = ""

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

    @property
    def down(self) -> bool:
        """No worker is up or coming, and the last one that tried has failed."""
        return not self.ready and not self.starting and self.failure is not None


def summarize(fields: Mapping[bytes, bytes], now: float) -> PoolHealth:
    """Add up the heartbeats of one pool's hash at Unix time `now`."""
    beats = read_heartbeats(fields)
    states = [beat.state for beat in beats if beat.alive(now)]
    failures = sorted((beat for beat in beats if beat.recent_failure(now)), key=lambda beat: beat.at)
    return PoolHealth(
        ready=states.count(WorkerState.READY),
        starting=states.count(WorkerState.STARTING),
        failure=failures[-1].reason if failures else None,
    )


def read_heartbeats(fields: Mapping[bytes, bytes]) -> list[Heartbeat]:
    """The heartbeats in one pool's hash; one that another version wrote and this one cannot read is left out."""
    return [beat for payload in fields.values() if (beat := _decode(payload)) is not None]


def _decode(payload: bytes) -> Heartbeat | None:
    try:
        fields = json.loads(payload)
        return Heartbeat(**{**fields, "state": WorkerState(fields["state"])})
    except (ValueError, TypeError, KeyError):
        return None


class HeartbeatWriter:
    """Writes one worker's heartbeats, and clears away those of workers long gone."""

    def __init__(self, client: redis.Redis, model: str, worker: str) -> None:
        self._client = client
        self._key = keys.workers(model)
        self._beat = Heartbeat(worker=worker, state=WorkerState.STARTING, at=0.0)

    def beat(self, state: WorkerState, reason: str = "") -> None:
        """Say where this worker stands. Raises redis.RedisError."""
        self._beat = replace(self._beat, state=state, at=time.time(), reason=reason)
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hset(self._key, self._beat.worker, json.dumps(asdict(self._beat)))
            pipe.expire(self._key, _HASH_SECONDS)
            pipe.execute()

    def forget_others(self) -> None:
        """Remove what nobody needs any more: silent workers, and failures that a ready worker has outlived."""
        now = time.time()
        fields: Mapping[bytes, bytes] = self._client.hgetall(self._key)  # type: ignore[assignment]
        stale = [name for name, payload in fields.items() if (beat := _decode(payload)) is None or not beat.alive(now)]
        if stale:
            self._client.hdel(self._key, *stale)

    def leave(self) -> None:
        """Remove this worker. Raises redis.RedisError."""
        self._client.hdel(self._key, self._beat.worker)
