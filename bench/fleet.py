"""A pool of workers as a discrete event simulation: jobs come, workers start, score, drain and go.

Owns what happens between two decisions; how many workers there should be, a scaler says (bench/scalers.py). What is
simulated: a worker scores one shard at a time at a fixed rate; interactive shards go first and interrupt batch ones, as
vLLM's priorities do; a start takes always the same time; a worker that has to go finishes its shard; nothing fails.
"""

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from bench.backlog import Backlog, Shard
from bench.traffic import Arrival
from shared.contracts import WorkClass
from shared.pools.signals import PoolSignals

_LONGEST_TAIL_SECONDS = 24 * 3600.0
_NAMES = [f"worker-{number}" for number in range(2000)]


class Scaler(Protocol):
    """Looks every `interval` seconds; where `wake_seconds` is set, also so long after a sleeping pool's first work."""

    interval: float
    wake_seconds: float | None

    def look(self, signals: PoolSignals, now: float) -> int:
        """How many workers there should be."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What is the same for every scaler: a worker's speed and start, and where jobs are cut into shards."""

    tokens_per_second: float = 8000.0
    start_seconds: float = 30.0
    shard_tokens: int = 16_384


@dataclass(slots=True)
class Outcome:
    """`waits`: of each interactive job, the seconds in which not all of it was in work. `batch`: from the first to the
    last moment of each batch job. `worker_seconds` count from the start of a process to its end."""

    waits: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)
    worker_seconds: float = 0.0
    starts: int = 0
    most_workers: int = 0
    unfinished: int = 0


@dataclass(slots=True, eq=False)
class _Worker:
    """`turn` tells the event that counts from one that was called off."""

    began: float
    until: float
    ready: bool = False
    draining: bool = False
    shard: Shard | None = None
    turn: int = 0


class Fleet:
    """One run of one scaler under one pattern of arrivals."""

    def __init__(self, scaler: Scaler, plan: Plan, warm: int = 0) -> None:
        """`warm` workers are ready from the beginning."""
        self.outcome = Outcome()
        self._scaler = scaler
        self._plan = plan
        self._now = 0.0
        self._look_at = 0.0
        self._changed = -math.inf
        self._events: list[tuple[float, int, _Worker, int]] = []
        self._number = 0
        # Dictionaries as sets that keep their order: the same run twice is the same.
        self._starting: dict[_Worker, None] = {}
        self._ready: dict[_Worker, None] = {}
        self._idle: dict[_Worker, None] = {}
        self._on_batch: dict[_Worker, None] = {}
        self._draining: dict[_Worker, None] = {}
        self._backlog = Backlog(plan.tokens_per_second, plan.shard_tokens)
        for _ in range(warm):
            worker = _Worker(0.0, 0.0, ready=True)
            self._ready[worker] = self._idle[worker] = None

    def run(self, arrivals: Iterable[Arrival], seconds: float) -> Outcome:
        """Everything that comes, for at least so many seconds and until it is done."""
        for arrival in arrivals:
            self._advance(arrival.at)
            self._take_in(arrival)
        end = seconds
        self._advance(end)
        while self._backlog.shards and end < seconds + _LONGEST_TAIL_SECONDS:
            end += 60.0
            self._advance(end)
        for worker in (*self._starting, *self._ready, *self._draining):
            self.outcome.worker_seconds += end - worker.began
        self.outcome.unfinished = self._backlog.jobs
        return self.outcome

    def signals(self) -> PoolSignals:
        """What an autoscaler would see now."""
        return PoolSignals(
            model="simulated",
            interactive=self._backlog.load(WorkClass.INTERACTIVE),
            batch=self._backlog.load(WorkClass.BATCH),
            oldest_seconds=0.0,
            idle_seconds=self._now - self._changed if self._changed > -math.inf else None,
            shards=self._backlog.shards,
            starting=len(self._starting),
            ready=len(self._ready),
            draining=len(self._draining),
            busy_workers=frozenset(_NAMES[: len(self._ready) - len(self._idle)]),
            tokens_per_second=self._plan.tokens_per_second,
            start_seconds=self._plan.start_seconds,
        )

    def _advance(self, until: float) -> None:
        """Everything that happens before `until` (seconds)."""
        events = self._events
        while True:
            event_at = events[0][0] if events else math.inf
            if min(event_at, self._look_at) > until:
                break
            if self._look_at < event_at:
                self._now = self._look_at
                self._look()
                continue
            self._now, _, worker, turn = heapq.heappop(events)
            if turn == worker.turn:
                self._scored(worker) if worker.ready else self._started(worker)
        self._now = until

    def _take_in(self, arrival: Arrival) -> None:
        if self._look_at == math.inf:
            interval = self._scaler.interval
            self._look_at = math.ceil(self._now / interval) * interval
        if not (self._starting or self._ready) and self._scaler.wake_seconds is not None:
            self._look_at = min(self._look_at, self._now + self._scaler.wake_seconds)
        self._changed = self._now
        for shard in self._backlog.take_in(arrival):
            self._dispatch(shard)

    def _dispatch(self, shard: Shard) -> None:
        """To who has waited longest for work; an interactive shard interrupts a batch one when nobody has."""
        if self._idle:
            worker = next(iter(self._idle))
            del self._idle[worker]
            self._begin(worker, shard)
        elif shard.interactive and self._on_batch:
            worker = next(iter(self._on_batch))
            del self._on_batch[worker]
            interrupted = worker.shard
            assert interrupted is not None
            interrupted.seconds = worker.until - self._now
            self._backlog.wait_first(interrupted)
            self._begin(worker, shard)
        else:
            self._backlog.wait(shard)

    def _begin(self, worker: _Worker, shard: Shard) -> None:
        worker.shard = shard
        self._call(worker, self._now + shard.seconds)
        if not shard.interactive:
            self._on_batch[worker] = None
            return
        shard.job.untaken -= 1
        if not shard.job.untaken:
            self.outcome.waits.append(self._now - shard.job.arrival.at)

    def _call(self, worker: _Worker, at: float) -> None:
        """Something will happen to the worker; what else was to, will not."""
        worker.until = at
        worker.turn += 1
        self._number += 1
        heapq.heappush(self._events, (at, self._number, worker, worker.turn))

    def _started(self, worker: _Worker) -> None:
        del self._starting[worker]
        worker.ready = True
        self._ready[worker] = None
        self._next(worker)

    def _scored(self, worker: _Worker) -> None:
        """The end of a shard."""
        shard = worker.shard
        assert shard is not None
        worker.shard = None
        self._on_batch.pop(worker, None)
        if self._backlog.done(shard):
            self._changed = self._now
            if not shard.interactive:
                self.outcome.batch.append(self._now - shard.job.arrival.at)
        if worker.draining:
            del self._draining[worker]
            self._gone(worker)
        else:
            self._next(worker)

    def _next(self, worker: _Worker) -> None:
        if shard := self._backlog.next():
            self._begin(worker, shard)
        else:
            self._idle[worker] = None

    def _look(self) -> None:
        """Ask the scaler, and do what it says."""
        self._resize(self._scaler.look(self.signals(), self._now))
        alive = len(self._starting) + len(self._ready) + len(self._draining)
        self.outcome.most_workers = max(self.outcome.most_workers, alive)
        interval = self._scaler.interval
        self._look_at = (math.floor(self._now / interval) + 1) * interval if alive or self._backlog.shards else math.inf

    def _resize(self, wanted: int) -> None:
        surplus = len(self._starting) + len(self._ready) - wanted
        for _ in range(-surplus):
            worker = _Worker(self._now, 0.0)
            self._starting[worker] = None
            self._call(worker, self._now + self._plan.start_seconds)
            self.outcome.starts += 1
        for _ in range(surplus):
            self._stop_one()

    def _stop_one(self) -> None:
        """Whose end costs least: who is not up yet, else who does nothing, else who works for nobody in a hurry."""
        if self._starting:
            worker, _ = self._starting.popitem()
            worker.turn += 1
        elif self._idle:
            worker, _ = self._idle.popitem()
            del self._ready[worker]
        else:
            worker = next(iter(self._on_batch or self._ready))
            self._on_batch.pop(worker, None)
            del self._ready[worker]
            worker.draining = True
            self._draining[worker] = None
            return
        self._gone(worker)

    def _gone(self, worker: _Worker) -> None:
        self.outcome.worker_seconds += self._now - worker.began
