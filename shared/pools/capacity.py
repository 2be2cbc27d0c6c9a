"""One machine for several pools: who gets its worker slots when they want more than there are. Pure.

A slot is a GPU, or whatever holds one worker; a worker that drains holds its own until it is gone. In this order:
1. what a pool's `min` promises;
2. the first worker of each pool with interactive work;
3. workers that have work now, whatever its class: they are never stopped for batch work;
4. more workers for pools with interactive work;
5. idle pools, the most recently used first: the least recently used one gives way;
6. workers that batch work would start.
An idle pool gives way to 4 at once. To 6 only once it has been quiet for its own `cooldown_seconds`: else a pool that
is asked once a minute would be loaded anew each time, beside a job that takes all day.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from shared.models import PoolSettings
from shared.pools.scaling import has_waiting_callers, is_outstanding
from shared.pools.signals import PoolSignals

_PROMISED, _FIRST_INTERACTIVE, _IN_WORK, _MORE_INTERACTIVE, _IDLE, _MORE_BATCH, _LONG_IDLE = range(7)


@dataclass(frozen=True, slots=True)
class PoolDemand:
    """What one pool asks of the machine. `alive` workers start or are ready, `draining` ones still hold their slot.

    `idle_seconds` is since its last work; `waiting_seconds` is the age of its oldest job.
    """

    desired: int
    promised: int = 0
    alive: int = 0
    draining: int = 0
    interactive: bool = False
    batch: bool = False
    idle_seconds: float = 0.0
    waiting_seconds: float = 0.0
    cooldown_seconds: float = 0.0

    @property
    def occupied(self) -> int:
        """The slots it holds now."""
        return self.alive + self.draining


def pool_demand(signals: PoolSignals, pool: PoolSettings, desired: int) -> PoolDemand:
    """The pool_demand of a pool that `shared.pools.scaling.decide` wants to have `desired` workers."""
    return PoolDemand(
        desired=desired,
        promised=min(pool.min, desired),
        alive=signals.starting + signals.ready,
        draining=signals.draining,
        interactive=has_waiting_callers(signals),
        batch=is_outstanding(signals.batch),
        # Never asked, as far as is known: the first to give way.
        idle_seconds=signals.idle_seconds if signals.idle_seconds is not None else float("inf"),
        waiting_seconds=signals.oldest_seconds,
        cooldown_seconds=pool.cooldown_seconds,
    )


def allocate_slots(wanted: Mapping[str, PoolDemand], capacity: int) -> dict[str, int]:
    """How many workers each pool may have, at most what it wants, when the machine has `capacity` slots.

    A pool gets a new worker only in a slot that is free now: those that have to go drain first. So what is granted
    and what still drains fit the machine together, as far as what runs already does.
    """
    asked = sorted(request for name, pool in wanted.items() for request in _requests(name, pool))
    granted = dict.fromkeys(wanted, 0)
    for *_, name in asked[:capacity]:
        granted[name] += 1
    free = capacity - sum(pool.occupied for pool in wanted.values())
    shares = {name: min(granted[name], pool.alive) for name, pool in wanted.items()}
    for *_, number, name in asked:
        if free > 0 and shares[name] < number <= granted[name]:
            shares[name] += 1
            free -= 1
    return shares


_Request = tuple[int, int, int, float, int, str]


def _requests(name: str, pool: PoolDemand) -> Iterator[_Request]:
    """One for each worker wanted, such that they sort by whose turn it is. A pool's own come in order."""
    working = pool.interactive or pool.batch
    for number in range(1, pool.desired + 1):
        exists = number <= pool.alive
        # Within a rank: first those that need no start, then each pool's next worker in turn, by how long its work has
        # waited. Idle pools: by who was used last.
        turn, order = (number, -pool.waiting_seconds) if working else (0, pool.idle_seconds)
        yield _rank(pool, number), 0 if exists else 1, turn, order, number, name


def _rank(pool: PoolDemand, number: int) -> int:
    """How a pool's worker of that number, from 1, counts."""
    if number <= pool.promised:
        return _PROMISED
    if pool.interactive and number == 1:
        return _FIRST_INTERACTIVE
    if not (pool.interactive or pool.batch):
        return _LONG_IDLE if pool.idle_seconds >= pool.cooldown_seconds else _IDLE
    if number <= pool.alive:
        return _IN_WORK
    return _MORE_INTERACTIVE if pool.interactive else _MORE_BATCH
