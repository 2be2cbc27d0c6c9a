"""The faults. Each is injected `count` times under load, at seeded moments, and leaves every process running."""

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from api.jobs.reconciler import LEADER_SECONDS
from shared.ledger.limits import LEASE_SECONDS
from tests.chaos.cases import Kind
from tests.chaos.fault_context import FaultContext
from tests.chaos.faulty_worker import CLOCK_VARIABLE
from tests.chaos.ledger_view import Lease
from tests.chaos.processes import Process
from tests.chaos.report import RECOVERY_SECONDS

HOUR_SECONDS = 3600
_DRAIN_SECONDS = 20.0
_POISON_SECONDS = 60.0
_TAKEOVER_SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault. `recovery_limit`: the seconds that recovery may take, None where nothing is promised."""

    kind: str
    inject: Callable[[FaultContext, int], None]
    recovery_limit: float | None = None


def kill_workers(context: FaultContext, count: int) -> None:
    """Kill mostly one worker, sometimes two at once, rarely all. In the first two cases another worker is ready."""
    worker_count = len(context.cluster.workers)
    while (remaining := count - context.row.faults) > 0:
        context.sleep(context.rng.uniform(0.4, 2.2))
        at_once = context.rng.choices((1, 2, worker_count), (88, 9, 3))[0]
        context.wait_for_workers(min(at_once + 1, worker_count))
        context.kill(context.pick_workers(min(at_once, remaining)))


def drain_workers(context: FaultContext, count: int) -> None:
    """Send SIGTERM: the worker requeues its shards without charging an attempt, and exits."""
    for _ in range(count):
        context.sleep(context.rng.uniform(0.3, 1.0))
        slot = context.pick_workers(1)[0]
        process = slot.process
        if process is None:
            continue
        context.row.faults += 1
        context.observer.measure_recovery(context.leases([process.pid]), context.row, time.monotonic())
        slot.end(signal.SIGTERM)
        if not context.wait_until(partial(_has_ended, process), _DRAIN_SECONDS):
            context.row.wrong.append(f"{slot.name} has not drained within {_DRAIN_SECONDS:g} s of SIGTERM")
            process.kill()
        elif process.exit_status != 0:
            context.row.wrong.append(f"{slot.name} ended with status {process.exit_status} after SIGTERM")


def _has_ended(process: Process) -> bool:
    return process.exit_status is not None


def skew_clocks(context: FaultContext, count: int) -> None:
    """Run workers an hour ahead, an hour behind and on time, then kill some. The clocks stay wrong."""
    for number, slot in enumerate(context.cluster.workers):
        offset = (HOUR_SECONDS, -HOUR_SECONDS, 0)[number % 3]
        context.cluster.restart_with(slot, {CLOCK_VARIABLE: str(offset)})
        context.row.faults += 1
    context.sleep(2.0)
    for _ in range(count):
        context.sleep(context.rng.uniform(0.5, 1.5))
        context.wait_for_workers(2)
        context.kill(context.pick_workers(1))


def kill_apis(context: FaultContext, count: int) -> None:
    """Kill one API process after the other; its waiting callers lose their connections."""
    for _ in range(count):
        context.sleep(context.rng.uniform(1.0, 2.5))
        context.measure_all_leases()
        context.rng.choice(context.cluster.apis).end(signal.SIGKILL)
        context.row.faults += 1


def two_reconcilers(context: FaultContext, count: int) -> None:
    """Pause the reconciling API process until another takes over; it resumes in the belief that it still leads.

    A worker is killed meanwhile, so that its leases expire while both processes reconcile.
    """
    for _ in range(count):
        context.sleep(1.0)
        name = context.cluster.view.reconciler_name()
        leader = _pause_leader(context)
        try:
            context.kill(context.pick_workers(1))
            if not context.wait_until(partial(_leader_changed, context, name), _TAKEOVER_SECONDS):
                context.row.wrong.append(f"no process took over reconciliation within {_TAKEOVER_SECONDS:g} s")
            context.sleep(max(0.0, LEASE_SECONDS - LEADER_SECONDS))
        finally:
            leader.send(signal.SIGCONT)
        context.sleep(2.0)


def _pause_leader(context: FaultContext) -> Process:
    """Pause the API process that reconciles. It is found by pausing each one until the lock is no longer renewed.

    The lock is renewed twice a second. The limit is far above that, so that a stall of the machine is not mistaken for
    the pause; it is below the lock's lifetime, so that the takeover comes after it.
    """
    processes = [slot.process for slot in context.cluster.apis if slot.process is not None]
    for process in processes:
        process.send(signal.SIGSTOP)
        before = context.cluster.view.reconciler_lock_ms()
        if not context.wait_until(partial(_is_renewed, context, before), LEADER_SECONDS * 0.75):
            return process
        process.send(signal.SIGCONT)
    return processes[-1]


def _leader_changed(context: FaultContext, name: str) -> bool:
    return context.cluster.view.reconciler_name() not in ("", name)


def _is_renewed(context: FaultContext, before_ms: int) -> bool:
    return context.cluster.view.reconciler_lock_ms() > before_ms


def reset_connections(context: FaultContext, count: int) -> None:
    """Reset all connections to Redis of the workers, of the API processes, or of both."""
    for _ in range(count):
        context.sleep(context.rng.uniform(0.4, 1.2))
        context.measure_all_leases()
        proxies = context.cluster.proxies
        names = context.rng.choice((["workers"], ["workers"], ["apis"], list(proxies)))
        for name in names:
            proxies[name].reset()
        context.row.faults += 1


def half_open_connections(context: FaultContext, count: int) -> None:
    """Stall the connections to Redis for longer than a lease, then deliver the data late or drop it."""
    for number in range(count):
        context.sleep(0.5)
        proxy = context.cluster.proxies["apis" if number % 3 == 2 else "workers"]
        context.measure_all_leases()
        proxy.stall()
        context.row.faults += 1
        try:
            context.sleep(context.rng.uniform(LEASE_SECONDS + 1, LEASE_SECONDS + 2.5))
        finally:
            proxy.resume(dropping=number % 2 == 0)


def restart_redis(context: FaultContext, count: int) -> None:
    """Stop Redis with SIGTERM, and start it a moment later with its append-only file."""
    _interrupt_redis(context, count, signal.SIGTERM)


def kill_redis(context: FaultContext, count: int) -> None:
    """Kill Redis with SIGKILL, and start it a moment later with its append-only file."""
    _interrupt_redis(context, count, signal.SIGKILL)


def _interrupt_redis(context: FaultContext, count: int, number: signal.Signals) -> None:
    for _ in range(count):
        context.sleep(context.rng.uniform(0.8, 1.5))
        context.measure_all_leases()
        context.cluster.stop_redis(number)
        context.row.faults += 1
        try:
            context.sleep(context.rng.uniform(0.2, 2.0))
        finally:
            context.cluster.start_redis()
        context.sleep(1.0)


def pause_workers(context: FaultContext, count: int) -> None:
    """Pause two workers that hold shards of one job until their leases expire; one worker if no such two exist.

    The first continues when another worker has claimed its shard and the job still runs, the second a second later.
    """
    for _ in range(count):
        context.sleep(0.5)
        slots = context.pick_workers_of_one_job()
        processes = [slot.process for slot in slots if slot.process is not None]
        paused_at = time.monotonic()
        for process in processes:
            process.send(signal.SIGSTOP)
        context.row.faults += 1
        try:
            leases = context.measure_leases_of([process.pid for process in processes], paused_at)
            first_leases = [lease for lease in leases if lease.held_by(processes[0].pid)]
            context.wait_until(partial(_any_lease_is_over, context, first_leases), _TAKEOVER_SECONDS)
            processes[0].send(signal.SIGCONT)
            context.sleep(1.0)
        finally:
            for process in processes:
                process.send(signal.SIGCONT)
        context.sleep(0.5)


def _any_lease_is_over(context: FaultContext, leases: Sequence[Lease]) -> bool:
    jobs = context.cluster.view.read(lease.job_id for lease in leases)
    return any(lease.is_over(jobs[lease.job_id]) for lease in leases)


def poison(context: FaultContext, count: int) -> None:
    """Submit a job whose document kills every worker that scores it. Other jobs must not be affected."""
    for _ in range(count):
        job_id = context.load.submit(Kind.POISON)
        context.row.faults += 1
        pids = {slot.name: slot.pid for slot in context.cluster.workers}
        deadline = time.monotonic() + _POISON_SECONDS
        while not context.observer.has_ended(job_id) and time.monotonic() < deadline:
            context.sleep(0.05)
            for slot in context.cluster.workers:
                if pids[slot.name] != slot.pid:
                    context.measure_leases_of([pids[slot.name]], time.monotonic())
                    pids[slot.name] = slot.pid
        if context.observer.has_ended(job_id) and job_id not in context.cluster.view.dead_letters():
            context.row.wrong.append(f"the poison job {job_id} is not in the dead-letter list")


KILL_WORKERS = Fault("worker SIGKILL", kill_workers, RECOVERY_SECONDS)
DRAIN = Fault("worker SIGTERM", drain_workers)
POISON = Fault("poison document", poison)
PAUSE = Fault("worker SIGSTOP past its lease", pause_workers)
SKEW = Fault("clock skew of one hour", skew_clocks, RECOVERY_SECONDS)
KILL_APIS = Fault("API SIGKILL", kill_apis)
RECONCILERS = Fault("two reconcilers", two_reconcilers)
RESET = Fault("connection resets", reset_connections)
HALF_OPEN = Fault("half-open connections", half_open_connections)
RESTART_REDIS = Fault("Redis SIGTERM", restart_redis)
KILL_REDIS = Fault("Redis SIGKILL", kill_redis)
