"""The queue of a simulated pool: jobs, their shards, and which shards wait. Contains neither workers nor a clock."""

import math
from collections import deque
from dataclasses import dataclass

from bench.traffic import Arrival
from shared.contracts import WorkClass
from shared.pools.signals import ClassLoad


@dataclass(slots=True, eq=False)
class Job:
    """`left` counts the unfinished shards, `untaken` those that no worker has started."""

    arrival: Arrival
    left: int
    untaken: int


@dataclass(slots=True, eq=False)
class Shard:
    """`seconds` is the remaining time that a worker needs for it."""

    job: Job
    tokens: float
    seconds: float
    interactive: bool


class Backlog:
    """All unfinished work. Interactive shards wait in front of batch shards."""

    def __init__(self, tokens_per_second: float, shard_tokens: int) -> None:
        self.shards = 0
        self._tokens_per_second = tokens_per_second
        self._shard_tokens = shard_tokens
        self._waiting: dict[bool, deque[Shard]] = {True: deque(), False: deque()}
        self._jobs = {True: 0, False: 0}
        self._pairs = {True: 0, False: 0}
        self._tokens = {True: 0.0, False: 0.0}

    @property
    def jobs(self) -> int:
        return self._jobs[True] + self._jobs[False]

    def add(self, arrival: Arrival) -> list[Shard]:
        """Add a job. Returns its shards, which are equal in size."""
        interactive = arrival.work_class is WorkClass.INTERACTIVE
        count = max(math.ceil(arrival.tokens / self._shard_tokens), 1)
        tokens = arrival.tokens / count
        job = Job(arrival, count, count)
        self._jobs[interactive] += 1
        self._pairs[interactive] += arrival.pairs
        self._tokens[interactive] += arrival.tokens
        self.shards += count
        return [Shard(job, tokens, tokens / self._tokens_per_second, interactive) for _ in range(count)]

    def append(self, shard: Shard) -> None:
        """Queue a shard behind the others of its class."""
        self._waiting[shard.interactive].append(shard)

    def append_left(self, shard: Shard) -> None:
        """Queue an interrupted shard in front of the others of its class."""
        self._waiting[shard.interactive].appendleft(shard)

    def pop(self) -> Shard | None:
        """Remove and return the next shard; None when none waits."""
        for waiting in self._waiting.values():
            if waiting:
                return waiting.popleft()
        return None

    def finish(self, shard: Shard) -> bool:
        """Remove a scored shard. Returns whether it was the last one of its job."""
        job = shard.job
        job.left -= 1
        self.shards -= 1
        self._tokens[shard.interactive] -= shard.tokens
        if job.left:
            return False
        self._jobs[shard.interactive] -= 1
        self._pairs[shard.interactive] -= job.arrival.pairs
        return True

    def load(self, work_class: WorkClass) -> ClassLoad:
        """Return the unfinished work of a class. Unlike the ledger, it includes shards that a worker scores now."""
        kind = work_class is WorkClass.INTERACTIVE
        return ClassLoad(jobs=self._jobs[kind], queued_pairs=self._pairs[kind], queued_tokens=round(self._tokens[kind]))
