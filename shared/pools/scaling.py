"""Decides how many workers one pool should have, and why. Pure functions of signals, settings, state and time.

It starts and stops nothing and reads no clock. It is in `shared` because the API shows the decision and the autoscaler
acts on it. `shared.pools.capacity` divides a machine between pools.

The rules, strongest first:
1. After a failed start no worker is started for a pause of 1 s, which doubles with each failure up to 300 s. Then one
   worker at a time is tried, until one is ready.
2. The pool has at least `min` and at most `max` workers.
3. Without outstanding work no worker is started, and after `idle_seconds` the pool scales down to `min`.
4. With outstanding work the pool has enough workers to finish it within `target_drain_seconds`, at least one; while
   their throughput is unknown, one. Batch work always keeps running workers, and starts some only with `batch_wakes`.
5. The pool scales down, to no less than one worker, when fewer were needed during all of `cooldown_seconds` and the
   average number of busy workers allows it. Sizing by the backlog alone would oscillate: a pool that keeps up with
   steady traffic has none.
"""

import math
from dataclasses import dataclass, replace

from shared.models import MAX_WORKERS, PoolSettings
from shared.pools.signals import ClassLoad, PoolSignals

FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 300.0
MAX_UTILIZATION = 0.85
"""A pool does not scale down below the size at which its workers are busy for this share of their time, because queues
grow without bound as utilization nears 1."""


@dataclass(frozen=True, slots=True)
class ScalingState:
    """What one decision passes to the next. A first or single decision starts with `ScalingState()`.

    `recent_needs`: the numbers of workers needed within the last `cooldown_seconds`, as (Unix seconds, workers), except
    those that a later need equals or exceeds; so the first one is the maximum. `average_busy`: the number of busy
    workers, averaged over about as long, as of `updated_at`. `idle_since`: when the pool was first seen without work.
    """

    recent_needs: tuple[tuple[float, int], ...] = ()
    average_busy: float = 0.0
    updated_at: float | None = None
    idle_since: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The pool should have `desired` workers that are starting or ready. `reason` is one sentence for operators.

    `reason` has the form "cause: consequence". `retry_at` (Unix seconds) is when the next start may be tried, during a
    pause after failed starts; else None. Pass `state` to the next decision.
    """

    desired: int
    reason: str
    retry_at: float | None
    state: ScalingState


def decide(signals: PoolSignals, pool: PoolSettings, state: ScalingState, now: float) -> Decision:
    """How many workers the pool should have at `now` (Unix seconds)."""
    state = _update_utilization(state, signals, pool, now)
    desired, reason, state = _unbounded_size(signals, pool, state, now)
    if desired > pool.max:
        desired, reason = pool.max, f"{reason}, but max is {pool.max}"
    elif desired < pool.min:
        desired, reason = pool.min, f"{reason}, but min is {pool.min}"
    retry_at = backing_off_until(signals, now)
    limit = _limit_after_failures(signals, retry_at)
    if desired > limit:
        desired, reason = limit, _describe_failures(signals, retry_at, now)
    return Decision(desired, reason, retry_at, state)


def backing_off_until(signals: PoolSignals, now: float) -> float | None:
    """When (Unix seconds) the pause after failed starts ends; None when a start may be tried now."""
    if not signals.failures or signals.failed_at is None:
        return None
    doublings = min(signals.failures - 1, 30)
    pause = min(FIRST_BACKOFF_SECONDS * 2**doublings, LONGEST_BACKOFF_SECONDS)
    # A worker's clock that is ahead must not lengthen the pause.
    retry_at = min(signals.failed_at, now) + pause
    return retry_at if retry_at > now else None


def has_waiting_callers(signals: PoolSignals) -> bool:
    """Whether interactive work is outstanding. Shards that are counted in neither class count as interactive."""
    return is_outstanding(signals.interactive) or (signals.shards > 0 and not is_outstanding(signals.batch))


def is_outstanding(load: ClassLoad) -> bool:
    """Whether one class has unfinished work."""
    return load.jobs > 0 or load.queued_pairs + load.running_pairs > 0


def _unbounded_size(
    signals: PoolSignals, pool: PoolSettings, state: ScalingState, now: float
) -> tuple[int, str, ScalingState]:
    """The size by rules 3 to 5, before `min`, `max` and failed starts limit it."""
    if not _has_work(signals):
        return _idle_size(signals, pool, state, now)
    needed, reason = _needed_now(signals, pool)
    state = _record_need(state, min(needed, pool.max), pool, now)
    kept, kept_reason = _kept_by_recent_use(signals, pool, state)
    return (kept, kept_reason, state) if kept > needed else (needed, reason, state)


def _idle_size(
    signals: PoolSignals, pool: PoolSettings, state: ScalingState, now: float
) -> tuple[int, str, ScalingState]:
    """The size without outstanding work: the last worker stays until the pool was idle for `idle_seconds`."""
    idle_since = state.idle_since if state.idle_since is not None else now
    idle_seconds = signals.idle_seconds if signals.idle_seconds is not None else max(now - idle_since, 0.0)
    alive = _alive(signals)
    if idle_seconds >= pool.idle_seconds or not alive:
        cause = f"idle for {idle_seconds:.0f} s" if alive else "no work is outstanding"
        state = replace(state, recent_needs=(), average_busy=0.0, idle_since=idle_since)
        return 0, f"{cause}: no worker is needed", state
    state = _record_need(replace(state, idle_since=idle_since), 1, pool, now)
    kept, kept_reason = _kept_by_recent_use(signals, pool, state)
    if kept > 1:
        return min(kept, alive), kept_reason, state
    return 1, f"idle for {idle_seconds:.0f} s: one worker stays until {pool.idle_seconds:.0f} s", state


def _needed_now(signals: PoolSignals, pool: PoolSettings) -> tuple[int, str]:
    """The size that the outstanding work needs now, and the reason."""
    alive = _alive(signals)
    size, reason = _size_for(signals, _tokens(signals.interactive) + _tokens(signals.batch), pool)
    if pool.batch_wakes or size <= alive:
        return size, reason
    # Batch work may start no worker: only interactive work can ask for more than there are.
    if has_waiting_callers(signals):
        size, reason = _size_for(signals, _tokens(signals.interactive), pool)
        if size > alive:
            return size, reason
    if alive:
        work = _describe_work(signals, "is outstanding", "are outstanding")
        return alive, f"{work}: batch work keeps {alive} running and starts none"
    work = _describe_work(signals, "waits", "wait")
    return 0, f"{work} for a running worker: batch work starts none in this pool"


def _size_for(signals: PoolSignals, tokens: int, pool: PoolSettings) -> tuple[int, str]:
    """The number of workers, at least one, that finish these tokens within `target_drain_seconds`, and the reason."""
    alive = _alive(signals)
    verbs = ("is outstanding", "are outstanding") if alive else ("waits", "wait")
    work = _describe_work(signals, *verbs)
    throughput = signals.tokens_per_second
    if throughput is None or throughput <= 0:
        return 1, f"{work}: one worker until the throughput is measured"
    # The bound keeps a very low throughput from resulting in infinity.
    size = max(math.ceil(min(tokens / (throughput * pool.target_drain_seconds), 1e9)), 1)
    if size == 1:
        return 1, f"{work}: one worker is enough" if alive else f"{work}: start one worker"
    return size, f"{work}, {tokens:,} tokens: {size:,} workers finish them in {pool.target_drain_seconds:.0f} s"


def _kept_by_recent_use(signals: PoolSignals, pool: PoolSettings, state: ScalingState) -> tuple[int, str]:
    """The size that recent needs and utilization keep, and the reason."""
    peak = state.recent_needs[0][1] if state.recent_needs else 0
    # Without the small difference, a rounding error makes 17 / 0.85 need 21 workers instead of 20.
    utilized = min(math.ceil(state.average_busy / MAX_UTILIZATION - 1e-9), _alive(signals))
    if utilized > peak:
        return utilized, f"{state.average_busy:.1f} workers are busy on average: {utilized} are kept"
    return peak, f"{peak} workers were needed within the last {pool.cooldown_seconds:.0f} s"


def _record_need(state: ScalingState, need: int, pool: PoolSettings, now: float) -> ScalingState:
    """Add a need, and drop those that it equals or exceeds and those older than `cooldown_seconds`."""
    # Timestamps are clamped so that a clock that was set back does not keep a need for longer.
    kept = [
        (min(at, now), count) for at, count in state.recent_needs if count > need and now - at < pool.cooldown_seconds
    ]
    return replace(state, recent_needs=(*kept, (now, need)))


def _update_utilization(state: ScalingState, signals: PoolSignals, pool: PoolSettings, now: float) -> ScalingState:
    """Update the moving average of busy workers, and end the idle time when there is work."""
    busy = float(len(signals.busy_workers))
    if state.updated_at is not None and pool.cooldown_seconds:
        weight = 1 - math.exp(-max(now - state.updated_at, 0.0) / pool.cooldown_seconds)
        busy = state.average_busy + (busy - state.average_busy) * weight
    idle_since = None if _has_work(signals) else state.idle_since
    return replace(state, average_busy=busy, updated_at=now, idle_since=idle_since)


def _limit_after_failures(signals: PoolSignals, retry_at: float | None) -> int:
    """The largest size that rule 1 allows: the live workers, and after the pause one that is not ready yet."""
    if not signals.failures:
        return MAX_WORKERS
    return _alive(signals) if retry_at is not None else max(_alive(signals), signals.ready + 1)


def _describe_failures(signals: PoolSignals, retry_at: float | None, now: float) -> str:
    starts = "the last start" if signals.failures == 1 else f"{signals.failures} starts in a row"
    next_step = "one worker is tried" if retry_at is None else f"next try in {math.ceil(retry_at - now)} s"
    return f"{starts} failed ({signals.failure or 'no reason was reported'}): {next_step}"


def _describe_work(signals: PoolSignals, singular_verb: str, plural_verb: str) -> str:
    """The outstanding pairs of each class with a verb, for example "12 interactive pairs wait"."""
    loads = {"interactive": signals.interactive, "batch": signals.batch}
    pairs = {name: load.queued_pairs + load.running_pairs for name, load in loads.items() if is_outstanding(load)}
    if not pairs:
        shards = f"shard {singular_verb}" if signals.shards == 1 else f"shards {plural_verb}"
        return f"{signals.shards:,} {shards}"
    counts = " and ".join(f"{count:,} {name}" for name, count in pairs.items())
    return f"{counts} pair {singular_verb}" if list(pairs.values()) == [1] else f"{counts} pairs {plural_verb}"


def _has_work(signals: PoolSignals) -> bool:
    return has_waiting_callers(signals) or is_outstanding(signals.batch)


def _tokens(load: ClassLoad) -> int:
    return load.queued_tokens + load.running_tokens


def _alive(signals: PoolSignals) -> int:
    return signals.starting + signals.ready
