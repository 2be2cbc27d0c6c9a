"""The work of a simulated pool: its jobs, their shards, and what of them waits. Knows no worker and no clock."""

import math
from collections import deque
from dataclasses import dataclass

from bench.traffic import Arrival
from shared.contracts import WorkClass
from shared.pools.signals import ClassLoad


@dataclass(slots=True, eq=False)
class Job:
    """`left` shards are not done, `untaken` ones were never in work."""

    arrival: Arrival
    left: int
    untaken: int


@dataclass(slots=True, eq=False)
class Shard:
    """`seconds` is how long a worker still needs for it."""

    job: Job
    tokens: float
    seconds: float
    interactive: bool


class Backlog:
    """What has come and is not done. Interactive shards wait in front of batch ones."""

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

    def take_in(self, arrival: Arrival) -> list[Shard]:
        """A new job, cut into shards of one size."""
        interactive = arrival.work_class is WorkClass.INTERACTIVE
        count = max(math.ceil(arrival.tokens / self._shard_tokens), 1)
        tokens = arrival.tokens / count
        job = Job(arrival, count, count)
        self._jobs[interactive] += 1
        self._pairs[interactive] += arrival.pairs
        self._tokens[interactive] += arrival.tokens
        self.shards += count
        return [Shard(job, tokens, tokens / self._tokens_per_second, interactive) for _ in range(count)]

    def wait(self, shard: Shard) -> None:
        """Nobody has room for it."""
        self._waiting[shard.interactive].append(shard)

    def wait_first(self, shard: Shard) -> None:
        """It was interrupted."""
        self._waiting[shard.interactive].appendleft(shard)

    def next(self) -> Shard | None:
        """What is to be done next."""
        for waiting in self._waiting.values():
            if waiting:
                return waiting.popleft()
        return None

    def done(self, shard: Shard) -> bool:
        """Strike a shard off; tells whether that was its job's last one."""
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
        """As the ledger counts it; what is in work is not told apart here."""
        kind = work_class is WorkClass.INTERACTIVE
        return ClassLoad(jobs=self._jobs[kind], queued_pairs=self._pairs[kind], queued_tokens=round(self._tokens[kind]))
