"""The faults. Each strikes a stage under load `count` times, at seeded moments, and leaves everything running again."""

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from api.jobs.reconciler import LEADER_SECONDS
from shared.ledger.limits import LEASE_SECONDS
from tests.chaos.cases import Kind
from tests.chaos.ledger_view import Lease
from tests.chaos.processes import Process
from tests.chaos.report import RECOVERY_SECONDS
from tests.chaos.stage import Stage
from tests.chaos.worker_start import CLOCK_VARIABLE

HOUR_SECONDS = 3600
_DRAIN_SECONDS = 20.0
_POISON_SECONDS = 60.0
_TAKEN_OVER_SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind. `recovery_limit`: the seconds that recovery may take, where that is promised."""

    kind: str
    strike: Callable[[Stage, int], None]
    recovery_limit: float | None = None


def kill_workers(stage: Stage, count: int) -> None:
    """Mostly one, at times two at once, seldom all. But for the last case somebody is left to take over."""
    everybody = len(stage.cluster.workers)
    while (left := count - stage.row.faults) > 0:
        stage.pause(stage.rng.uniform(0.4, 2.2))
        together = stage.rng.choices((1, 2, everybody), (88, 9, 3))[0]
        stage.wait_for_workers(min(together + 1, everybody))
        stage.kill(stage.victims(min(together, left)))


def drain_workers(stage: Stage, count: int) -> None:
    """SIGTERM: the worker gives back what it has, free of charge, and ends."""
    for _ in range(count):
        stage.pause(stage.rng.uniform(0.3, 1.0))
        slot = stage.victims(1)[0]
        process = slot.process
        if process is None:
            continue
        stage.row.faults += 1
        stage.observer.watch(stage.leases([process.pid]), stage.row, time.monotonic())
        slot.strike(signal.SIGTERM)
        if not stage.until(partial(_has_ended, process), _DRAIN_SECONDS):
            stage.row.wrong.append(f"{slot.name} has not drained within {_DRAIN_SECONDS:g} s of SIGTERM")
            process.kill()
        elif process.exit_status != 0:
            stage.row.wrong.append(f"{slot.name} ended with status {process.exit_status} after SIGTERM")


def _has_ended(process: Process) -> bool:
    return process.exit_status is not None


def skew_clocks(stage: Stage, count: int) -> None:
    """Workers an hour ahead, an hour behind and right; then some are killed. They stay like this."""
    for number, slot in enumerate(stage.cluster.workers):
        offset = (HOUR_SECONDS, -HOUR_SECONDS, 0)[number % 3]
        stage.cluster.replace(slot, {CLOCK_VARIABLE: str(offset)})
        stage.row.faults += 1
    stage.pause(2.0)
    for _ in range(count):
        stage.pause(stage.rng.uniform(0.5, 1.5))
        stage.wait_for_workers(2)
        stage.kill(stage.victims(1))


def kill_apis(stage: Stage, count: int) -> None:
    """One API process after the other, its waiting callers with it."""
    for _ in range(count):
        stage.pause(stage.rng.uniform(1.0, 2.5))
        stage.everything_held()
        stage.rng.choice(stage.cluster.apis).strike(signal.SIGKILL)
        stage.row.faults += 1


def two_reconcilers(stage: Stage, count: int) -> None:
    """The one that reconciles is stopped until another has taken over, and wakes up believing that it still leads.

    A worker dies meanwhile: its shards fall due when both of them look.
    """
    for _ in range(count):
        stage.pause(1.0)
        name = stage.cluster.view.reconciler()
        leader = _stop_leader(stage)
        try:
            stage.kill(stage.victims(1))
            if not stage.until(partial(_leads_another, stage, name), _TAKEN_OVER_SECONDS):
                stage.row.wrong.append(f"nobody took over the reconciler's work within {_TAKEN_OVER_SECONDS:g} s")
            stage.pause(max(0.0, LEASE_SECONDS - LEADER_SECONDS))
        finally:
            leader.send(signal.SIGCONT)
        stage.pause(2.0)


def _stop_leader(stage: Stage) -> Process:
    """Stop the API process that reconciles: the one without which nobody renews the lock any more."""
    processes = [slot.process for slot in stage.cluster.apis if slot.process is not None]
    for process in processes:
        process.send(signal.SIGSTOP)
        before = stage.cluster.view.reconciler_ms()
        if not stage.until(partial(_is_renewed, stage, before), LEADER_SECONDS / 2):
            return process
        process.send(signal.SIGCONT)
    return processes[-1]


def _leads_another(stage: Stage, name: str) -> bool:
    return stage.cluster.view.reconciler() not in ("", name)


def _is_renewed(stage: Stage, before_ms: int) -> bool:
    return stage.cluster.view.reconciler_ms() > before_ms


def reset_connections(stage: Stage, count: int) -> None:
    """Every connection to Redis: the workers', the APIs', or all."""
    for _ in range(count):
        stage.pause(stage.rng.uniform(0.4, 1.2))
        stage.everything_held()
        links = stage.cluster.links
        names = stage.rng.choice((["workers"], ["workers"], ["apis"], list(links)))
        for name in names:
            links[name].reset()
        stage.row.faults += 1


def half_open_links(stage: Stage, count: int) -> None:
    """A link falls silent for longer than a lease; what it held back comes late, or never."""
    for number in range(count):
        stage.pause(0.5)
        link = stage.cluster.links["apis" if number % 3 == 2 else "workers"]
        stage.everything_held()
        link.stall()
        stage.row.faults += 1
        try:
            stage.pause(stage.rng.uniform(LEASE_SECONDS + 1, LEASE_SECONDS + 2.5))
        finally:
            link.resume(dropping=number % 2 == 0)


def restart_redis(stage: Stage, count: int) -> None:
    """SIGTERM, a while without it, and there it is again with its file."""
    _away(stage, count, signal.SIGTERM)


def kill_redis(stage: Stage, count: int) -> None:
    """SIGKILL, and the same."""
    _away(stage, count, signal.SIGKILL)


def _away(stage: Stage, count: int, number: signal.Signals) -> None:
    for _ in range(count):
        stage.pause(stage.rng.uniform(0.8, 1.5))
        stage.everything_held()
        stage.cluster.end_redis(number)
        stage.row.faults += 1
        try:
            stage.pause(stage.rng.uniform(0.2, 2.0))
        finally:
            stage.cluster.start_redis()
        stage.pause(1.0)


def pause_workers(stage: Stage, count: int) -> None:
    """SIGSTOP past the lease, for two workers that hold shards of one job, if there are such.

    The first goes on just when a third one has taken its shard and the job still runs; the second when that is done.
    """
    for _ in range(count):
        stage.pause(0.5)
        slots = stage.partners()
        processes = [slot.process for slot in slots if slot.process is not None]
        struck = time.monotonic()
        for process in processes:
            process.send(signal.SIGSTOP)
        stage.row.faults += 1
        try:
            leases = stage.orphaned([process.pid for process in processes], struck)
            first = [lease for lease in leases if lease.held_by(processes[0].pid)]
            stage.until(partial(_in_other_hands, stage, first), _TAKEN_OVER_SECONDS)
            processes[0].send(signal.SIGCONT)
            stage.pause(1.0)
        finally:
            for process in processes:
                process.send(signal.SIGCONT)
        stage.pause(0.5)


def _in_other_hands(stage: Stage, leases: Sequence[Lease]) -> bool:
    jobs = stage.cluster.view.read(lease.job_id for lease in leases)
    return any(lease.is_over(jobs[lease.job_id]) for lease in leases)


def poison(stage: Stage, count: int) -> None:
    """A job whose document kills every worker that scores it. Its neighbours must not suffer for it."""
    for _ in range(count):
        job_id = stage.load.submit(Kind.POISON)
        stage.row.faults += 1
        pids = {slot.name: slot.pid for slot in stage.cluster.workers}
        deadline = time.monotonic() + _POISON_SECONDS
        while not stage.observer.has_ended(job_id) and time.monotonic() < deadline:
            stage.pause(0.05)
            for slot in stage.cluster.workers:
                if pids[slot.name] != slot.pid:
                    stage.orphaned([pids[slot.name]], time.monotonic())
                    pids[slot.name] = slot.pid
        if stage.observer.has_ended(job_id) and job_id not in stage.cluster.view.buried():
            stage.row.wrong.append(f"the poison job {job_id} is not on the dead list")


KILL_WORKERS = Fault("worker SIGKILL", kill_workers, RECOVERY_SECONDS)
DRAIN = Fault("worker SIGTERM", drain_workers)
POISON = Fault("poison document", poison)
PAUSE = Fault("worker SIGSTOP past its lease", pause_workers)
SKEW = Fault("clocks an hour wrong", skew_clocks, RECOVERY_SECONDS)
KILL_APIS = Fault("API SIGKILL", kill_apis)
RECONCILERS = Fault("two reconcilers", two_reconcilers)
RESET = Fault("connections reset", reset_connections)
HALF_OPEN = Fault("half-open link", half_open_links)
RESTART_REDIS = Fault("Redis restarted", restart_redis)
KILL_REDIS = Fault("Redis SIGKILL", kill_redis)
