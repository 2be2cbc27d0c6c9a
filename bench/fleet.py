"""A discrete event simulation of a pool: jobs arrive; workers start, score, drain and stop.

It simulates what happens between two scaling decisions; a scaler (bench/scalers.py) decides the number of workers.
Model: a worker scores one shard at a time at a fixed rate; interactive shards go first and interrupt batch shards, as
vLLM's priorities do; every start takes the same time; a draining worker finishes its shard; nothing fails.
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
    """Decides every `interval` seconds and, if `wake_seconds` is set, that long after work reaches an empty pool."""

    interval: float
    wake_seconds: float | None

    def decide(self, signals: PoolSignals, now: float) -> int:
        """Return the desired number of workers."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """The same for every scaler: the rate and start time of a worker, and the size of a shard."""

    tokens_per_second: float = 8000.0
    start_seconds: float = 30.0
    shard_tokens: int = 16_384


@dataclass(slots=True)
class Outcome:
    """`waits` has the seconds from the arrival of each interactive job until its last shard started. `batch` has the
    seconds from the arrival of each batch job to its end. `worker_seconds` add up the lifetimes of all processes."""

    waits: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)
    worker_seconds: float = 0.0
    starts: int = 0
    most_workers: int = 0
    unfinished: int = 0


@dataclass(slots=True, eq=False)
class _Worker:
    """An event whose `turn` differs from the worker's has been cancelled."""

    began: float
    until: float
    ready: bool = False
    draining: bool = False
    shard: Shard | None = None
    turn: int = 0


class Fleet:
    """One simulation of one scaler under one traffic pattern."""

    def __init__(self, scaler: Scaler, plan: Plan, warm: int = 0) -> None:
        """`warm` workers are ready at the start."""
        self.outcome = Outcome()
        self._scaler = scaler
        self._plan = plan
        self._now = 0.0
        self._decide_at = 0.0
        self._changed = -math.inf
        self._events: list[tuple[float, int, _Worker, int]] = []
        self._number = 0
        # Dictionaries serve as ordered sets, so that a simulation can be repeated exactly.
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
        """Simulate all arrivals, for at least `seconds` and until all work is done."""
        for arrival in arrivals:
            self._advance(arrival.at)
            self._add(arrival)
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
        """Return what an autoscaler sees at this moment."""
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
        """Process all events before `until` (seconds)."""
        events = self._events
        while True:
            event_at = events[0][0] if events else math.inf
            if min(event_at, self._decide_at) > until:
                break
            if self._decide_at < event_at:
                self._now = self._decide_at
                self._rescale()
                continue
            self._now, _, worker, turn = heapq.heappop(events)
            if turn == worker.turn:
                self._scored(worker) if worker.ready else self._started(worker)
        self._now = until

    def _add(self, arrival: Arrival) -> None:
        if self._decide_at == math.inf:
            interval = self._scaler.interval
            self._decide_at = math.ceil(self._now / interval) * interval
        if not (self._starting or self._ready) and self._scaler.wake_seconds is not None:
            self._decide_at = min(self._decide_at, self._now + self._scaler.wake_seconds)
        self._changed = self._now
        for shard in self._backlog.add(arrival):
            self._dispatch(shard)

    def _dispatch(self, shard: Shard) -> None:
        """Give the shard to the longest idle worker; without one, an interactive shard interrupts a batch shard."""
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
            self._backlog.append_left(interrupted)
            self._begin(worker, shard)
        else:
            self._backlog.append(shard)

    def _begin(self, worker: _Worker, shard: Shard) -> None:
        worker.shard = shard
        self._schedule(worker, self._now + shard.seconds)
        if not shard.interactive:
            self._on_batch[worker] = None
            return
        shard.job.untaken -= 1
        if not shard.job.untaken:
            self.outcome.waits.append(self._now - shard.job.arrival.at)

    def _schedule(self, worker: _Worker, at: float) -> None:
        """Schedule the worker's next event; cancels the one scheduled before."""
        worker.until = at
        worker.turn += 1
        self._number += 1
        heapq.heappush(self._events, (at, self._number, worker, worker.turn))

    def _started(self, worker: _Worker) -> None:
        del self._starting[worker]
        worker.ready = True
        self._ready[worker] = None
        self._start_next(worker)

    def _scored(self, worker: _Worker) -> None:
        """Record that a worker has finished its shard."""
        shard = worker.shard
        assert shard is not None
        worker.shard = None
        self._on_batch.pop(worker, None)
        if self._backlog.finish(shard):
            self._changed = self._now
            if not shard.interactive:
                self.outcome.batch.append(self._now - shard.job.arrival.at)
        if worker.draining:
            del self._draining[worker]
            self._end(worker)
        else:
            self._start_next(worker)

    def _start_next(self, worker: _Worker) -> None:
        if shard := self._backlog.pop():
            self._begin(worker, shard)
        else:
            self._idle[worker] = None

    def _rescale(self) -> None:
        """Apply the decision of the scaler."""
        self._resize(self._scaler.decide(self.signals(), self._now))
        alive = len(self._starting) + len(self._ready) + len(self._draining)
        self.outcome.most_workers = max(self.outcome.most_workers, alive)
        interval = self._scaler.interval
        self._decide_at = (
            (math.floor(self._now / interval) + 1) * interval if alive or self._backlog.shards else math.inf
        )

    def _resize(self, desired: int) -> None:
        surplus = len(self._starting) + len(self._ready) - desired
        for _ in range(-surplus):
            worker = _Worker(self._now, 0.0)
            self._starting[worker] = None
            self._schedule(worker, self._now + self._plan.start_seconds)
            self.outcome.starts += 1
        for _ in range(surplus):
            self._stop_one()

    def _stop_one(self) -> None:
        """Stop the worker that costs least: a starting one, else an idle one, else one with batch work, else any."""
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
        self._end(worker)

    def _end(self, worker: _Worker) -> None:
        self.outcome.worker_seconds += self._now - worker.began
