"""Observe, decide, act: one round looks at every pool once and has the launcher do what follows.

Owns what is remembered between rounds, and what is told: people (`say`) what happens and why, the pools of workers
that died without a word. Refuses to decide how many workers there should be (shared.scaling), who gives way on a full
machine (shared.machine), and how a worker is started (launchers).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import redis
from redis.exceptions import RedisError

from shared import keys
from shared.heartbeats import HeartbeatWriter, WorkerState, read_heartbeats, worker_name
from shared.machine import share_machine, wish
from shared.models import ModelSpec
from shared.pool_signals import PoolSignals, read_signals_now
from shared.processes import how_it_ended
from shared.scaling import Decision, Memory, decide, is_outstanding, somebody_waits
from worker.autoscaler.launchers import Ended, Launcher
from worker.autoscaler.workers import Worker

LAST_SECONDS = 15.0
"""How long after its time to drain a worker may take to end. It is killed then."""
_REASON_CHARACTERS = 300


@dataclass(slots=True)
class _Pool:
    """What is remembered of one pool. `told` is what was last said of it, so that nothing is said twice."""

    spec: ModelSpec
    memory: Memory = field(default_factory=Memory)
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
        self._say = say
        self._capacity = capacity
        self._start_seconds = start_seconds
        self._drain_seconds = drain_seconds
        self._ended: list[Ended] = []
        """Those that nobody was told of yet."""
        self._reachable = True

    def round(self) -> None:
        """Look once, and act. While Redis is away nothing is started or stopped."""
        self._ended += self._launcher.reap()
        try:
            self._note_the_ended()
            seen = read_signals_now(self._client, list(self._pools), time.time())
        except (RedisError, OSError) as error:
            if self._reachable:
                self._say(f"Redis cannot be reached, the workers stay as they are: {str(error)[:200]}")
            self._reachable = False
            return
        if not self._reachable:
            self._say("Redis is there again")
        self._reachable = True
        self._act({name: self._with_own(self._pools[name], signals) for name, signals in seen.items()})

    def close(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """Stop every worker, and wait for its end; by force when `hurry` says so."""
        deadline = time.monotonic() + self._drain_seconds + LAST_SECONDS
        self._ended += self._launcher.close(lambda: hurry() or time.monotonic() >= deadline)
        try:
            self._note_the_ended()
        except (RedisError, OSError):
            # Their heartbeats will fall silent.
            self._ended.clear()

    def _with_own(self, pool: _Pool, signals: PoolSignals) -> PoolSignals:
        """The signals, with what is known of our own workers before they have said it, or when they cannot any more."""
        own = self._launcher.workers(pool.spec.name)
        said = {beat.worker: beat.state for beat in signals.workers}
        names = {worker.name for worker in own}
        states = [state for name, state in said.items() if name not in names]
        for worker in own:
            state = said.get(worker.name or "", WorkerState.STARTING)
            if state is WorkerState.READY and not worker.was_ready:
                worker.was_ready = True
                self._tell(pool.spec.name, f"ready after {time.monotonic() - worker.started_at:.1f} s")
            states.append(WorkerState.DRAINING if worker.stopping_since is not None else state)
            self._hurry(worker)
        return replace(
            signals,
            starting=states.count(WorkerState.STARTING),
            ready=states.count(WorkerState.READY),
            draining=states.count(WorkerState.DRAINING),
        )

    def _hurry(self, worker: Worker) -> None:
        """End a worker that takes too long."""
        now = time.monotonic()
        if worker.stopping_since is not None:
            if now - worker.stopping_since > self._drain_seconds + LAST_SECONDS:
                worker.kill()
        elif not worker.was_ready and now - worker.started_at > self._start_seconds:
            worker.gave_up = f"not ready within {self._start_seconds:g} s"
            worker.kill()

    def _act(self, seen: Mapping[str, PoolSignals]) -> None:
        now = time.time()
        decisions: dict[str, Decision] = {}
        for name, pool in self._pools.items():
            decisions[name] = decide(seen[name], pool.spec.pool, pool.memory, now)
            pool.memory = decisions[name].memory
        wishes = {name: wish(seen[name], self._pools[name].spec.pool, decisions[name].desired) for name in seen}
        shares = share_machine(wishes, self._capacity)
        for name, pool in self._pools.items():
            self._bring(pool, seen[name], decisions[name], shares[name])

    def _bring(self, pool: _Pool, signals: PoolSignals, decision: Decision, share: int) -> None:
        """Start or stop what is between the workers that there are and the pool's share."""
        alive = signals.starting + signals.ready
        if share > alive:
            self._tell_once(
                pool,
                ("start", share),
                f"{_why_start(pool, signals, decision)}: {self._do('start', share - alive, alive)}",
            )
            for _ in range(share - alive):
                self._start(pool.spec)
        elif share < alive:
            why = _cause(decision) if decision.desired < alive else "another model needs the place"
            self._tell_once(pool, ("stop", share), f"{why}: {self._do('stop', alive - share, alive)}")
            self._stop(pool.spec.name, signals, alive - share)
        elif decision.desired > share:
            self._tell_once(pool, ("full",), f"{_cause(decision)}: there is no room for another worker")
        elif decision.retry_at is not None and _is_awaited(signals):
            self._tell_once(pool, ("failed", signals.failures), decision.reason)
        else:
            pool.told = ()

    def _start(self, spec: ModelSpec) -> None:
        try:
            self._launcher.start(spec)
        except OSError as error:
            reason = f"the worker's process could not be started: {error}"
            self._tell(spec.name, reason)
            # In our own name, for it has none.
            HeartbeatWriter(self._client, spec.name, worker_name()).fail(reason)

    def _stop(self, model: str, signals: PoolSignals, count: int) -> None:
        """Ask so many to stop: first those that are not ready yet, then those without work."""
        going = [worker for worker in self._launcher.workers(model) if worker.stopping_since is None]
        going.sort(key=lambda worker: (worker.was_ready, worker.name in signals.busy_workers))
        for worker in going[:count]:
            worker.ask_to_stop()

    def _note_the_ended(self) -> None:
        """Say how they ended, where their heartbeats are read. Raises redis.RedisError."""
        while self._ended:
            self._note(self._ended[0])
            self._ended.pop(0)

    def _note(self, end: Ended) -> None:
        worker, name = end.worker, end.worker.name or ""
        writer = HeartbeatWriter(self._client, worker.model, name)
        beats = read_heartbeats({b"": self._client.hget(keys.workers(worker.model), name) or b""})  # type: ignore[dict-item]
        how = how_it_ended(end.status)
        if beats and beats[0].state is WorkerState.FAILED:
            self._tell(worker.model, f"the worker could not start: {beats[0].reason}")
        elif worker.gave_up or not (
            worker.stopping_since is not None or worker.was_ready or (beats and beats[0].ready_at)
        ):
            reason = worker.gave_up or f"the worker {how} before it was ready: {worker.output.last_line}"
            writer.fail(reason[:_REASON_CHARACTERS])
            self._tell(worker.model, f"the worker could not start: {reason}")
        else:
            # One that was killed could not say goodbye: nobody shall count on it.
            writer.leave()
            self._tell(worker.model, f"the worker {'has stopped' if end.status == 0 else how}")

    def _do(self, what: str, count: int, alive: int) -> str:
        """`starting a worker`, or what would be done by who acts."""
        workers = f"{count} workers" if count > 1 else "the worker" if alive == 1 and what == "stop" else "a worker"
        doing = {"start": "starting", "stop": "stopping"}[what]
        return f"{doing} {workers}" if self._launcher.acts else f"would {what} {workers}"

    def _tell(self, model: str, sentence: str) -> None:
        self._say(sentence if len(self._pools) == 1 else f"{model}: {sentence}")

    def _tell_once(self, pool: _Pool, key: tuple[object, ...], sentence: str) -> None:
        if pool.told != key:
            pool.told = key
            self._tell(pool.spec.name, sentence)


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
    return somebody_waits(signals) or is_outstanding(signals.batch)
