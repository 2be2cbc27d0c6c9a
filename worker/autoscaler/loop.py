"""Observe, decide, act: one round looks at every pool once and has the launcher do what follows.

Owns what is remembered between rounds, and tells people (`say`) what happens and why. Refuses to decide how many
workers there should be (shared.pools.scaling), who gives way on a full machine (shared.pools.capacity), how a
worker is started (launchers) and what is left of one that has died (obituaries).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import redis
from redis.exceptions import RedisError

from shared.keys import pool_keys
from shared.models import ModelSpec
from shared.pools.capacity import allocate_slots, pool_demand
from shared.pools.heartbeats import WorkerState
from shared.pools.scaling import Decision, ScalingState, decide, has_waiting_callers, is_outstanding
from shared.pools.signals import PoolSignals, read_signals_blocking
from worker.autoscaler.exit_reports import ExitReporter
from worker.autoscaler.launchers import Launcher, WorkerExit
from worker.autoscaler.worker_process import WorkerProcess

LAST_SECONDS = 15.0
"""How long after its time to drain a worker may take to end. It is killed then."""
SILENT_SECONDS = 20.0
"""A worker that was ready and has said nothing for so long hangs, and has lost its shards to others long ago. It is
killed, and so replaced: while there are callers who wait."""


@dataclass(slots=True)
class _Pool:
    """What is remembered of one pool. `told` is what was last said of it, so that nothing is said twice."""

    spec: ModelSpec
    memory: ScalingState = field(default_factory=ScalingState)
    told: tuple[object, ...] = ()


class Autoscaler:
    """The pools that one launcher serves."""

    def __init__(
        self,
        client: redis.Redis,
        specs: Sequence[ModelSpec],
        launcher: Launcher,
        say: Callable[[str], None],
        *,
        capacity: int,
        start_seconds: float,
        drain_seconds: float,
    ) -> None:
        """`capacity`: workers that the machine has room for. The other two bound a worker's start and its drain."""
        self._client = client
        self._pools = {spec.name: _Pool(spec) for spec in specs}
        self._launcher = launcher
        self._obituaries = ExitReporter(client)
        self._say = say
        self._capacity = capacity
        self._start_seconds = start_seconds
        self._drain_seconds = drain_seconds
        self._ended: list[WorkerExit] = []
        """Those of whom nothing is written yet."""
        self._reachable: bool | None = None

    def round(self) -> None:
        """Look once, and act. While Redis is away nothing is started or stopped."""
        self._ended += self._launcher.reap()
        try:
            if self._reachable is None and self._launcher.acts:
                self._obituaries.forget_predecessors(self._pools)
            self._note_the_ended()
            seen = read_signals_blocking(self._client, list(self._pools), time.time())
            if self._launcher.acts:
                # Where nothing can be written, nobody's silence says anything.
                self._client.hdel(pool_keys.workers(next(iter(self._pools))), "")
        except (RedisError, OSError) as error:
            if self._reachable is not False:
                self._say(f"Redis cannot be reached, the workers stay as they are: {str(error)[:200]}")
            self._reachable = False
            return
        if self._reachable is False:
            self._say("Redis is there again")
            self._forgive_silence()
        self._reachable = True
        self._act({name: self._with_own(self._pools[name], signals) for name, signals in seen.items()})

    def close(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """Stop every worker, and wait for its end; by force when `hurry` says so."""
        deadline = time.monotonic() + self._drain_seconds + LAST_SECONDS
        self._ended += self._launcher.close(lambda: hurry() or time.monotonic() >= deadline)
        try:
            self._note_the_ended()
        except (RedisError, OSError):
            # Nobody hears from them any more: that says it too, a little later.
            self._ended.clear()

    def _with_own(self, pool: _Pool, signals: PoolSignals) -> PoolSignals:
        """The signals, with what is known of our own workers before they have said it, or when they cannot any more."""
        own = self._launcher.workers(pool.spec.name)
        said = {beat.worker: beat.state for beat in signals.workers}
        names = {worker.name for worker in own}
        states = [state for name, state in said.items() if name not in names]
        for worker in own:
            state = said.get(worker.name or "")
            if state is not None:
                worker.heard_at = time.monotonic()
            if state is WorkerState.READY and not worker.was_ready:
                worker.was_ready = True
                self._tell(pool, f"ready after {time.monotonic() - worker.started_at:.1f} s")
            self._end_if_it_hangs(pool, worker)
            states.append(WorkerState.DRAINING if worker.stopping_since is not None else state or WorkerState.STARTING)
        return replace(
            signals,
            starting=states.count(WorkerState.STARTING),
            ready=states.count(WorkerState.READY),
            draining=states.count(WorkerState.DRAINING),
        )

    def _end_if_it_hangs(self, pool: _Pool, worker: WorkerProcess) -> None:
        now = time.monotonic()
        if worker.stopping_since is not None:
            if now - worker.stopping_since > self._drain_seconds + LAST_SECONDS:
                worker.kill()
        elif worker.was_ready:
            if now - worker.heard_at > SILENT_SECONDS:
                self._tell(pool, f"the worker has been silent for {SILENT_SECONDS:.0f} s: ending it")
                worker.kill()
        elif now - worker.started_at > self._start_seconds:
            worker.gave_up = f"not ready within {self._start_seconds:g} s"
            worker.kill()

    def _forgive_silence(self) -> None:
        """What was said meanwhile could not be heard."""
        for name in self._pools:
            for worker in self._launcher.workers(name):
                worker.heard_at = time.monotonic()

    def _act(self, seen: Mapping[str, PoolSignals]) -> None:
        now = time.time()
        decisions: dict[str, Decision] = {}
        for name, pool in self._pools.items():
            decisions[name] = decide(seen[name], pool.spec.pool, pool.memory, now)
            pool.memory = decisions[name].state
        wishes = {name: pool_demand(seen[name], self._pools[name].spec.pool, decisions[name].desired) for name in seen}
        shares = allocate_slots(wishes, self._capacity)
        for name, pool in self._pools.items():
            self._bring(pool, seen[name], decisions[name], shares[name])

    def _bring(self, pool: _Pool, signals: PoolSignals, decision: Decision, share: int) -> None:
        """Start or stop what is between the workers that there are and the pool's share."""
        alive = signals.starting + signals.ready
        if share > alive:
            self._start(pool, share - alive, _why_start(pool, signals, decision))
        elif share < alive:
            why = _cause(decision) if decision.desired < alive else "another model needs the place"
            self._stop(pool, signals, alive - share, why)
        elif decision.desired > share:
            self._tell_once(pool, ("full",), f"{_cause(decision)}: there is no room for another worker")
        elif decision.retry_at is not None and _is_awaited(signals):
            self._tell_once(pool, ("failed", signals.failures), decision.reason)
        else:
            pool.told = ()

    def _start(self, pool: _Pool, count: int, why: str) -> None:
        what = "a worker" if count == 1 else f"{count} workers"
        self._tell_once(pool, ("start", count), f"{why}: {'starting' if self._launcher.acts else 'would start'} {what}")
        for _ in range(count):
            try:
                self._launcher.start(pool.spec)
            except OSError as error:
                self._tell(pool, self._obituaries.no_process(pool.spec.name, error))

    def _stop(self, pool: _Pool, signals: PoolSignals, count: int, why: str) -> None:
        """Ask so many to stop: first those that are not ready yet, then those without work."""
        going = [worker for worker in self._launcher.workers(pool.spec.name) if worker.stopping_since is None]
        going.sort(key=lambda worker: (worker.was_ready, worker.name in signals.busy_workers))
        what = (
            f"{count} workers" if count > 1 else "the worker" if signals.starting + signals.ready == 1 else "a worker"
        )
        if going or not self._launcher.acts:
            doing = "stopping" if self._launcher.acts else "would stop"
            self._tell_once(pool, ("stop", count), f"{why}: {doing} {what}")
        for worker in going[:count]:
            worker.request_stop()

    def _note_the_ended(self) -> None:
        """Raises redis.RedisError, after which it may be called again."""
        while self._ended:
            end = self._ended[0]
            self._tell(self._pools[end.worker.model], self._obituaries.note(end))
            self._ended.pop(0)

    def _tell(self, pool: _Pool, sentence: str) -> None:
        self._say(sentence if len(self._pools) == 1 else f"{pool.spec.name}: {sentence}")

    def _tell_once(self, pool: _Pool, key: tuple[object, ...], sentence: str) -> None:
        if pool.told != key:
            pool.told = key
            self._tell(pool, sentence)


def _why_start(pool: _Pool, signals: PoolSignals, decision: Decision) -> str:
    alive, jobs = signals.starting + signals.ready, signals.interactive.jobs + signals.batch.jobs
    if jobs and not alive and not signals.failures:
        return "1 request waits" if jobs == 1 else f"{jobs:,} requests wait"
    if not jobs and decision.desired <= pool.spec.pool.min:
        return f"{pool.spec.pool.min} always run"
    return _cause(decision)


def _cause(decision: Decision) -> str:
    """The decision's reason without what follows from it."""
    return decision.reason.rpartition(": ")[0] or decision.reason


def _is_awaited(signals: PoolSignals) -> bool:
    return has_waiting_callers(signals) or is_outstanding(signals.batch)
