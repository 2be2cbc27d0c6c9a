"""Divides the worker slots of one machine between pools that together want more than it has. Pure functions.

A slot holds one worker, for instance one GPU. A draining worker occupies its slot until it exits. Slots go to, in this
order:
1. workers that `min` guarantees;
2. the first worker of each pool with interactive work;
3. running workers of pools with work of any class: batch work never stops them;
4. further workers for pools with interactive work;
5. workers of idle pools, the most recently used pool first;
6. further workers for pools with batch work only;
7. workers of pools that have been idle for their `cooldown_seconds`.

Batch work takes a slot only from a pool of the last kind. Otherwise a pool that receives one request a minute would
load its model again for each, beside a batch job that runs all day.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum, auto

from shared.models import PoolSettings
from shared.pools.scaling import has_waiting_callers, is_outstanding
from shared.pools.signals import PoolSignals


class _Rank(IntEnum):
    """The order above: a lower rank gets a slot first."""

    GUARANTEED = auto()
    FIRST_INTERACTIVE = auto()
    RUNNING_WITH_WORK = auto()
    MORE_INTERACTIVE = auto()
    IDLE = auto()
    MORE_BATCH = auto()
    LONG_IDLE = auto()


@dataclass(frozen=True, slots=True)
class PoolDemand:
    """The slots that one pool asks for.

    `alive` workers are starting or ready; `draining` workers still occupy a slot. `interactive` and `batch` tell
    whether work of that class is outstanding. `idle_seconds` counts since the pool's last work, `waiting_seconds`
    since its oldest unfinished job was submitted.
    """

    desired: int
    guaranteed: int = 0
    alive: int = 0
    draining: int = 0
    interactive: bool = False
    batch: bool = False
    idle_seconds: float = 0.0
    waiting_seconds: float = 0.0
    cooldown_seconds: float = 0.0

    @property
    def occupied(self) -> int:
        """The number of slots that the pool occupies now."""
        return self.alive + self.draining


def pool_demand(signals: PoolSignals, pool: PoolSettings, desired: int) -> PoolDemand:
    """The demand of a pool for which `shared.pools.scaling.decide` returned `desired` workers."""
    return PoolDemand(
        desired=desired,
        guaranteed=min(pool.min, desired),
        alive=signals.starting + signals.ready,
        draining=signals.draining,
        interactive=has_waiting_callers(signals),
        batch=is_outstanding(signals.batch),
        # Without any recorded work the pool counts as the least recently used one.
        idle_seconds=signals.idle_seconds if signals.idle_seconds is not None else float("inf"),
        waiting_seconds=signals.oldest_seconds,
        cooldown_seconds=pool.cooldown_seconds,
    )


def allocate_slots(demands: Mapping[str, PoolDemand], capacity: int) -> dict[str, int]:
    """The number of workers that each pool may have now, when the machine has `capacity` slots.

    A pool never gets more than it asks for. A new worker gets only a slot that is free now: a pool that loses a slot
    drains its worker first, and the slot is allocated in a later call.
    """
    requests = sorted(request for name, demand in demands.items() for request in _slot_requests(name, demand))
    granted = dict.fromkeys(demands, 0)
    for *_, name in requests[:capacity]:
        granted[name] += 1
    free = capacity - sum(demand.occupied for demand in demands.values())
    shares = {name: min(granted[name], demand.alive) for name, demand in demands.items()}
    for *_, number, name in requests:
        if free > 0 and shares[name] < number <= granted[name]:
            shares[name] += 1
            free -= 1
    return shares


_SlotRequest = tuple[_Rank, int, int, float, int, str]


def _slot_requests(name: str, demand: PoolDemand) -> Iterator[_SlotRequest]:
    """One request for each desired worker of a pool. All pools' requests sort by precedence.

    Within a rank, running workers precede new ones. Pools with work then get one worker each in turn, the pool with the
    longest waiting job first; idle pools are ordered by how recently they were used.
    """
    has_work = demand.interactive or demand.batch
    for number in range(1, demand.desired + 1):
        is_new = 0 if number <= demand.alive else 1
        turn, order = (number, -demand.waiting_seconds) if has_work else (0, demand.idle_seconds)
        yield _rank(demand, number), is_new, turn, order, number, name


def _rank(demand: PoolDemand, number: int) -> _Rank:
    """The rank of a pool's worker with this number, counted from 1."""
    if number <= demand.guaranteed:
        return _Rank.GUARANTEED
    if demand.interactive and number == 1:
        return _Rank.FIRST_INTERACTIVE
    if not (demand.interactive or demand.batch):
        return _Rank.LONG_IDLE if demand.idle_seconds >= demand.cooldown_seconds else _Rank.IDLE
    if number <= demand.alive:
        return _Rank.RUNNING_WITH_WORK
    return _Rank.MORE_INTERACTIVE if demand.interactive else _Rank.MORE_BATCH
