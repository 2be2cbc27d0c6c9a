"""The autoscaling loop: each round reads the signals of every pool, decides, and starts or stops workers.

Owns the state between rounds, and announces what happens and why. Refuses to decide how many workers a pool needs
(shared.pools.scaling), which pool yields on a full machine (shared.pools.capacity), how a worker is started
(launchers), and how its exit is recorded (exit_reports).
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
from worker.autoscaler.metrics import AutoscalerMetrics
from worker.autoscaler.worker_process import WorkerProcess

EXIT_GRACE_SECONDS = 15.0
"""A worker that has not exited this long after its drain time is killed."""
HEARTBEAT_TIMEOUT_SECONDS = 20.0
"""A ready worker without a heartbeat for this long hangs, and its leases have expired. It is killed, and replaced if
its pool still needs it."""


@dataclass(slots=True)
class _Pool:
    """The state of one pool between rounds. `last_announced` prevents repeated announcements."""

    spec: ModelSpec
    scaling: ScalingState = field(default_factory=ScalingState)
    last_announced: tuple[object, ...] = ()


class Autoscaler:
    """Scales the pools of one launcher."""

    def __init__(
        self,
        client: redis.Redis,
        specs: Sequence[ModelSpec],
        launcher: Launcher,
        announce: Callable[[str], None],
        *,
        capacity: int,
        start_seconds: float,
        drain_seconds: float,
        metrics: AutoscalerMetrics | None = None,
    ) -> None:
        """`announce` receives messages for the operator. `capacity` is the number of workers that the machine can run.

        A worker that is not ready after `start_seconds` has failed. `drain_seconds` is the workers' drain time.
        """
        self._client = client
        self._pools = {spec.name: _Pool(spec) for spec in specs}
        self._launcher = launcher
        self._exit_reporter = ExitReporter(client)
        self._announce = announce
        self._capacity = capacity
        self._start_seconds = start_seconds
        self._drain_seconds = drain_seconds
        self._metrics = metrics or AutoscalerMetrics()
        self._unreported_exits: list[WorkerExit] = []
        self._redis_reachable: bool | None = None
        """None before the first round."""

    def round(self) -> None:
        """Read all pools once, and scale them. While Redis is unreachable, no worker is started or stopped."""
        self._unreported_exits += self._launcher.reap()
        try:
            if self._redis_reachable is None and self._launcher.acts:
                self._exit_reporter.remove_previous_heartbeats(self._pools)
            self._report_exits()
            signals = read_signals_blocking(self._client, list(self._pools), time.time())
            if self._launcher.acts:
                # Raises when Redis accepts no writes: workers cannot write heartbeats then either, and do not hang.
                self._client.hdel(pool_keys.workers(next(iter(self._pools))), "")
        except (RedisError, OSError) as error:
            if self._redis_reachable is not False:
                self._announce(f"Redis is unreachable, no worker is started or stopped: {str(error)[:200]}")
            self._redis_reachable = False
            return
        if self._redis_reachable is False:
            self._announce("Redis is reachable again")
            self._restart_heartbeat_timeouts()
        self._redis_reachable = True
        self._scale({name: self._check_workers(self._pools[name], signals[name]) for name in signals})

    def close(self, forced: Callable[[], bool] = lambda: False) -> None:
        """Stop every worker and wait until all have ended. Kills the remaining ones once `forced` returns true."""
        deadline = time.monotonic() + self._drain_seconds + EXIT_GRACE_SECONDS
        self._unreported_exits += self._launcher.close(lambda: forced() or time.monotonic() >= deadline)
        try:
            self._report_exits()
        except (RedisError, OSError):
            # The heartbeats of these workers become stale instead.
            self._unreported_exits.clear()

    def _check_workers(self, pool: _Pool, signals: PoolSignals) -> PoolSignals:
        """Update this launcher's workers from their heartbeats, and kill those that hang.

        Returns the signals with corrected worker counts: a worker counts before its first heartbeat, and a stopping
        worker counts as draining.
        """
        own = self._launcher.workers(pool.spec.name)
        reported = {beat.worker: beat.state for beat in signals.workers}
        names = {worker.name for worker in own}
        states = [state for name, state in reported.items() if name not in names]
        for worker in own:
            state = reported.get(worker.name or "")
            if state is not None:
                worker.last_heartbeat_at = time.monotonic()
            if state is WorkerState.READY and not worker.was_ready:
                worker.was_ready = True
                self._announce_for(pool, f"ready after {time.monotonic() - worker.started_at:.1f} s")
            self._kill_if_it_hangs(pool, worker)
            states.append(WorkerState.DRAINING if worker.stopping_since is not None else state or WorkerState.STARTING)
        return replace(
            signals,
            starting=states.count(WorkerState.STARTING),
            ready=states.count(WorkerState.READY),
            draining=states.count(WorkerState.DRAINING),
        )

    def _kill_if_it_hangs(self, pool: _Pool, worker: WorkerProcess) -> None:
        now = time.monotonic()
        if worker.stopping_since is not None:
            if now - worker.stopping_since > self._drain_seconds + EXIT_GRACE_SECONDS:
                worker.kill()
        elif worker.was_ready:
            if now - worker.last_heartbeat_at > HEARTBEAT_TIMEOUT_SECONDS:
                self._announce_for(pool, f"no heartbeat for {HEARTBEAT_TIMEOUT_SECONDS:.0f} s: killing the worker")
                worker.kill()
        elif now - worker.started_at > self._start_seconds:
            worker.start_failure = f"not ready within {self._start_seconds:g} s"
            worker.kill()

    def _restart_heartbeat_timeouts(self) -> None:
        """Workers could not write heartbeats while Redis was unreachable."""
        for name in self._pools:
            for worker in self._launcher.workers(name):
                worker.last_heartbeat_at = time.monotonic()

    def _scale(self, signals: Mapping[str, PoolSignals]) -> None:
        now = time.time()
        decisions: dict[str, Decision] = {}
        for name, pool in self._pools.items():
            decisions[name] = decide(signals[name], pool.spec.pool, pool.scaling, now)
            pool.scaling = decisions[name].state
        demands = {
            name: pool_demand(signals[name], pool.spec.pool, decisions[name].desired)
            for name, pool in self._pools.items()
        }
        slots = allocate_slots(demands, self._capacity)
        for name, pool in self._pools.items():
            states = {state: getattr(signals[name], state) for state in ("starting", "ready", "draining")}
            self._metrics.decided(name, decisions[name].desired, slots[name], states)
            self._scale_to(slots[name], pool, signals[name], decisions[name])
        self._metrics.round_ended()

    def _scale_to(self, slots: int, pool: _Pool, signals: PoolSignals, decision: Decision) -> None:
        """Start or stop workers until the pool has as many as its slots."""
        alive = signals.starting + signals.ready
        if slots > alive:
            self._start(pool, slots - alive, _start_reason(pool, signals, decision))
        elif slots < alive:
            reason = _cause(decision) if decision.desired < alive else "another model needs the slot"
            self._stop(pool, signals, alive - slots, reason)
        elif decision.desired > slots:
            self._announce_once(pool, ("full",), f"{_cause(decision)}: no worker slot is free")
        elif decision.retry_at is not None and _has_outstanding_work(signals):
            self._announce_once(pool, ("failed", signals.failures), decision.reason)
        else:
            pool.last_announced = ()

    def _start(self, pool: _Pool, count: int, reason: str) -> None:
        verb = "starting" if self._launcher.acts else "would start"
        what = "a worker" if count == 1 else f"{count} workers"
        self._announce_once(pool, ("start", count), f"{reason}: {verb} {what}")
        for _ in range(count):
            try:
                self._launcher.start(pool.spec)
                self._metrics.started(pool.spec.name)
            except OSError as error:
                self._announce_for(pool, self._exit_reporter.report_failed_start(pool.spec.name, error))

    def _stop(self, pool: _Pool, signals: PoolSignals, count: int, reason: str) -> None:
        """Stop `count` workers: those that are not ready first, then idle ones, then busy ones."""
        candidates = [worker for worker in self._launcher.workers(pool.spec.name) if worker.stopping_since is None]
        candidates.sort(key=lambda worker: (worker.was_ready, worker.name in signals.busy_workers))
        if candidates or not self._launcher.acts:
            verb = "stopping" if self._launcher.acts else "would stop"
            only = signals.starting + signals.ready == 1
            what = f"{count} workers" if count > 1 else "the worker" if only else "a worker"
            self._announce_once(pool, ("stop", count), f"{reason}: {verb} {what}")
        for worker in candidates[:count]:
            worker.request_stop()

    def _report_exits(self) -> None:
        """Report all unreported exits. Raises redis.RedisError and keeps the remaining ones for the next call."""
        while self._unreported_exits:
            model = self._unreported_exits[0].worker.model
            report = self._exit_reporter.report_exit(self._unreported_exits[0])
            self._announce_for(self._pools[model], report.message)
            self._metrics.exited(model, report.how)
            self._unreported_exits.pop(0)

    def _announce_for(self, pool: _Pool, message: str) -> None:
        self._announce(message if len(self._pools) == 1 else f"{pool.spec.name}: {message}")

    def _announce_once(self, pool: _Pool, key: tuple[object, ...], message: str) -> None:
        if pool.last_announced != key:
            pool.last_announced = key
            self._announce_for(pool, message)


def _start_reason(pool: _Pool, signals: PoolSignals, decision: Decision) -> str:
    alive, jobs = signals.starting + signals.ready, signals.interactive.jobs + signals.batch.jobs
    if jobs and not alive and not signals.failures:
        return "1 request waits" if jobs == 1 else f"{jobs:,} requests wait"
    if not jobs and decision.desired <= pool.spec.pool.min:
        return f"min is {pool.spec.pool.min}"
    return _cause(decision)


def _cause(decision: Decision) -> str:
    """The first part of the decision's reason, without the conclusion after the last colon."""
    return decision.reason.rpartition(": ")[0] or decision.reason


def _has_outstanding_work(signals: PoolSignals) -> bool:
    return has_waiting_callers(signals) or is_outstanding(signals.batch)
