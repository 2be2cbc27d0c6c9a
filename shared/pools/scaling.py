"""How many workers a pool should have, and why. Pure: signals, settings, memory and a time in, a number out.

It stands in `shared` because the API shows what the autoscaler does, and the two never meet. It starts and stops
nothing, reads no clock, and knows no model but the one it is asked about; `shared.pools.capacity` divides one machine.

The rules, in the order in which they count:
1. A failed start is followed by a pause that doubles, 1 s to 300 s; until a worker is ready, one is tried at a time.
2. Never more than `max`, never fewer than `min`.
3. Nothing outstanding for `idle_seconds`: `min`. Nothing outstanding starts nothing.
4. Work outstanding: as many as finish it within `target_drain_seconds`, one at least, at once. Without a measured
   rate, one. Batch work keeps the workers that run; it starts some only where `batch_wakes` is set.
5. Fewer, down to one, when fewer were needed throughout `cooldown_seconds`, and those that would go had little to do.
   The backlog starts workers, and use keeps them: a pool that keeps up with steady work has no backlog, and sizing by
   that alone would give its workers up and take them back for ever.
"""

import math
from dataclasses import dataclass, replace

from shared.models import MAX_WORKERS, PoolSettings
from shared.pools.signals import ClassLoad, PoolSignals

FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 300.0
CAPACITY_EXHAUSTED = 0.85
"""A pool is not made smaller than lets its workers be busy for this share of their time: a queue grows without bound
as that nears 1."""


@dataclass(frozen=True, slots=True)
class ScalingState:
    """What a decider hands from one round to the next; `ScalingState()` at first, and for whoever decides only once.

    `needs` are the needs of the last `cooldown_seconds` that no later one exceeds: (Unix seconds, workers), falling.
    `busy` is the number of workers with something in hand, averaged over about as long; `seen_at` is when.
    `quiet_since` is when nothing was first seen outstanding.
    """

    needs: tuple[tuple[float, int], ...] = ()
    busy: float = 0.0
    seen_at: float | None = None
    quiet_since: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """`desired` workers that start or are ready, and `reason`, one sentence for people.

    `retry_at` (Unix seconds) is when the next start is tried, while failed ones are being waited out, whether or not
    anybody needs a worker now.
    """

    desired: int
    reason: str
    retry_at: float | None
    memory: ScalingState


def decide(signals: PoolSignals, pool: PoolSettings, memory: ScalingState, now: float) -> Decision:
    """How many workers the pool should have at `now` (Unix seconds)."""
    memory = _remember_use(memory, signals, pool, now)
    wanted, reason, memory = _wanted(signals, pool, memory, now)
    if wanted > pool.max:
        wanted, reason = pool.max, f"{reason}, {pool.max} at most"
    elif wanted < pool.min:
        wanted, reason = pool.min, f"{reason}, {pool.min} always"
    retry_at = backing_off_until(signals, now)
    possible = _possible(signals, retry_at)
    if wanted > possible:
        wanted, reason = possible, _failure(signals, retry_at, now)
    return Decision(wanted, reason, retry_at, memory)


def backing_off_until(signals: PoolSignals, now: float) -> float | None:
    """When (Unix seconds) a start is tried again after failed ones; None when one may be tried now."""
    if not signals.failures or signals.failed_at is None:
        return None
    doublings = min(signals.failures - 1, 30)
    pause = min(FIRST_BACKOFF_SECONDS * 2**doublings, LONGEST_BACKOFF_SECONDS)
    # A failure noted by a clock that is ahead must not make the pause longer.
    retry_at = min(signals.failed_at, now) + pause
    return retry_at if retry_at > now else None


def has_waiting_callers(signals: PoolSignals) -> bool:
    """Whether interactive work is outstanding. Shards that no count knows of are taken for such."""
    return is_outstanding(signals.interactive) or (signals.shards > 0 and not is_outstanding(signals.batch))


def is_outstanding(load: ClassLoad) -> bool:
    """Whether there is work of one class that has not ended."""
    return load.jobs > 0 or load.queued_pairs + load.running_pairs > 0


def _wanted(
    signals: PoolSignals, pool: PoolSettings, memory: ScalingState, now: float
) -> tuple[int, str, ScalingState]:
    """What settings and work ask for, not yet between `min` and `max`."""
    if not _outstanding(signals):
        return _quiet(signals, pool, memory, now)
    need, reason = _need(signals, pool)
    memory = replace(memory, needs=_with(memory.needs, min(need, pool.max), pool.cooldown_seconds, now))
    held, holding = _held(signals, pool, memory)
    return (held, holding, memory) if held > need else (need, reason, memory)


def _quiet(signals: PoolSignals, pool: PoolSettings, memory: ScalingState, now: float) -> tuple[int, str, ScalingState]:
    """Nothing is outstanding: the last worker stays until the pool has been idle for long enough."""
    since = memory.quiet_since if memory.quiet_since is not None else now
    idle = signals.idle_seconds if signals.idle_seconds is not None else max(now - since, 0.0)
    if idle >= pool.idle_seconds or not _alive(signals):
        reason = f"quiet for {idle:.0f} s" if _alive(signals) else "nothing is outstanding"
        return 0, f"{reason}: no worker is needed", replace(memory, needs=(), busy=0.0, quiet_since=since)
    memory = replace(memory, needs=_with(memory.needs, 1, pool.cooldown_seconds, now), quiet_since=since)
    held, holding = _held(signals, pool, memory)
    if held > 1:
        return min(held, _alive(signals)), holding, memory
    return 1, f"quiet for {idle:.0f} s: one worker stays until {pool.idle_seconds:.0f} s", memory


def _need(signals: PoolSignals, pool: PoolSettings) -> tuple[int, str]:
    """What the outstanding work needs now. Batch work may keep workers where it starts none."""
    alive = _alive(signals)
    total, reason = _size(signals, _tokens(signals.interactive) + _tokens(signals.batch), pool)
    if pool.batch_wakes or total <= alive:
        return total, reason
    alone, reason = _size(signals, _tokens(signals.interactive), pool) if has_waiting_callers(signals) else (0, "")
    if alone > alive:
        return alone, reason
    if alive:
        return alive, f"{_work(signals, 'is outstanding', 'are outstanding')}: batch work keeps {alive} and starts none"
    return 0, f"{_work(signals, 'waits', 'wait')} for a warm worker: batch work does not wake this pool"


def _size(signals: PoolSignals, tokens: int, pool: PoolSettings) -> tuple[int, str]:
    """How many workers finish so many estimated tokens in time."""
    what = _work(signals, "is outstanding", "are outstanding") if _alive(signals) else _work(signals, "waits", "wait")
    rate = signals.tokens_per_second
    if rate is None or rate <= 0:
        return 1, f"{what}: one worker until its rate is measured"
    # The bound keeps an absurdly low rate from becoming infinity.
    size = max(math.ceil(min(tokens / (rate * pool.target_drain_seconds), 1e9)), 1)
    if size == 1:
        return 1, f"{what}: one worker is enough" if _alive(signals) else f"{what}: wake one worker"
    return size, f"{what}, {tokens:,} tokens: {size:,} workers finish them in {pool.target_drain_seconds:.0f} s"


def _held(signals: PoolSignals, pool: PoolSettings, memory: ScalingState) -> tuple[int, str]:
    """What the last minutes ask for."""
    peak = memory.needs[0][1] if memory.needs else 0
    # The small difference keeps 17 / 0.85 from being a hair more than 20.
    used = min(math.ceil(memory.busy / CAPACITY_EXHAUSTED - 1e-9), _alive(signals))
    if used > peak:
        return used, f"{memory.busy:.1f} workers are busy on average: {used} stay"
    return peak, f"{peak} workers were needed within the last {pool.cooldown_seconds:.0f} s"


def _with(needs: tuple[tuple[float, int], ...], need: int, window: float, now: float) -> tuple[tuple[float, int], ...]:
    """The needs of the window with one more, without those that it outdoes."""
    # A clock that was set back must not keep a need for longer.
    kept = [(min(at, now), count) for at, count in needs if count > need and now - at < window]
    return (*kept, (now, need))


def _remember_use(memory: ScalingState, signals: PoolSignals, pool: PoolSettings, now: float) -> ScalingState:
    """Average the number of busy workers over about the cooldown."""
    busy = float(len(signals.busy_workers))
    if memory.seen_at is not None and pool.cooldown_seconds:
        share = 1 - math.exp(-max(now - memory.seen_at, 0.0) / pool.cooldown_seconds)
        busy = memory.busy + (busy - memory.busy) * share
    since = None if _outstanding(signals) else memory.quiet_since
    return replace(memory, busy=busy, seen_at=now, quiet_since=since)


def _possible(signals: PoolSignals, retry_at: float | None) -> int:
    """How many workers there may be after failed starts: those that live, and one more when it is time to try."""
    if not signals.failures:
        return MAX_WORKERS
    return _alive(signals) if retry_at is not None else max(_alive(signals), signals.ready + 1)


def _failure(signals: PoolSignals, retry_at: float | None, now: float) -> str:
    count = "the last start" if signals.failures == 1 else f"{signals.failures} starts in a row"
    then = "one worker is tried" if retry_at is None else f"next try in {math.ceil(retry_at - now)} s"
    return f"{count} failed ({signals.failure or 'no reason was given'}): {then}"


def _work(signals: PoolSignals, one: str, many: str) -> str:
    """What is outstanding, in words, with a verb that goes with it."""
    loads = {"interactive": signals.interactive, "batch": signals.batch}
    pairs = {name: load.queued_pairs + load.running_pairs for name, load in loads.items() if is_outstanding(load)}
    if not pairs:
        return f"{signals.shards:,} {f'shard {one}' if signals.shards == 1 else f'shards {many}'}"
    subject = " and ".join(f"{count:,} {name}" for name, count in pairs.items())
    return f"{subject} {f'pair {one}' if list(pairs.values()) == [1] else f'pairs {many}'}"


def _outstanding(signals: PoolSignals) -> bool:
    return has_waiting_callers(signals) or is_outstanding(signals.batch)


def _tokens(load: ClassLoad) -> int:
    return load.queued_tokens + load.running_tokens


def _alive(signals: PoolSignals) -> int:
    return signals.starting + signals.ready
