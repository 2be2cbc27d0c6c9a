"""Which faults are played together, and how often: the short form and the long one."""

from dataclasses import replace

from tests.chaos.cluster import Size
from tests.chaos.faults import (
    DRAIN,
    HALF_OPEN,
    KILL_APIS,
    KILL_REDIS,
    KILL_WORKERS,
    PAUSE,
    POISON,
    RECONCILERS,
    RESET,
    RESTART_REDIS,
    SKEW,
)
from tests.chaos.harness import Lane

SHORT_KILLS = 20


def short_lanes() -> list[Lane]:
    """Every fault at least once, within little more than a minute: most of it is waiting, so lanes run side by side."""
    size = Size(workers=3, result_seconds=10.0)
    # A scoring that takes longer leaves more room for two to do the same.
    slow = replace(size, delay_seconds=0.4)
    return [
        Lane("A", [(KILL_WORKERS, SHORT_KILLS), (DRAIN, 2), (KILL_APIS, 2)], size, callers=12),
        Lane("B", [(POISON, 1), (SKEW, 1), (RECONCILERS, 1)], size, callers=10),
        Lane("C", [(PAUSE, 2), (HALF_OPEN, 1), (RESET, 3), (RESTART_REDIS, 1), (KILL_REDIS, 1)], slow, callers=8),
    ]


def long_lanes(kills: int, *, only: str = "", keep: bool = False) -> list[Lane]:
    """Two clusters: workers die on one, everything else happens on the other."""
    size = Size(workers=4, keep=keep)
    lanes = [
        Lane("A", [(KILL_WORKERS, kills), (DRAIN, 10)], size, callers=12),
        Lane(
            "B",
            [
                (POISON, 4),
                (RECONCILERS, 4),
                (PAUSE, 8),
                (KILL_APIS, 15),
                (HALF_OPEN, 6),
                (RESET, 20),
                (RESTART_REDIS, 5),
                (KILL_REDIS, 8),
                (SKEW, 8),
            ],
            replace(size, workers=3, delay_seconds=0.3),
            callers=10,
        ),
    ]
    chosen = [replace(lane, plan=[step for step in lane.plan if only in step[0].kind]) for lane in lanes]
    return [lane for lane in chosen if lane.plan]
