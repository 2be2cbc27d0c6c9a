"""The scenarios of the short run (`make test`) and of the long one (`make chaos`)."""

from dataclasses import replace

from tests.chaos.batches.plan import LONG, SHORT
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
from tests.chaos.harness import Scenario
from tests.chaos.webhooks import WEBHOOKS

SHORT_KILLS = 20


def short_scenarios() -> list[Scenario]:
    """Inject every fault at least once, in about a minute. Scenarios mostly wait, so they can run concurrently."""
    size = Size(workers=3, result_seconds=10.0)
    # Slow scoring makes it more likely that two workers score the same shard.
    slow = replace(size, delay_seconds=0.4)
    return [
        Scenario("A", [(KILL_WORKERS, SHORT_KILLS), (DRAIN, 2), (KILL_APIS, 2)], size, callers=12),
        Scenario("B", [(POISON, 1), (SKEW, 1), (RECONCILERS, 1)], size, callers=10),
        Scenario("C", [(PAUSE, 2), (HALF_OPEN, 1), (RESET, 3), (RESTART_REDIS, 1), (KILL_REDIS, 1)], slow, callers=8),
        Scenario("D", [(SHORT.fault, SHORT.count), (WEBHOOKS, 2)], replace(size, workers=2), callers=0),
    ]


def long_scenarios(kills: int, *, only: str = "", keep: bool = False) -> list[Scenario]:
    """Use three clusters: one for SIGKILL and SIGTERM of workers, one for a batch, one for all other faults."""
    size = Size(workers=4, keep=keep)
    # Two shards for each line, for more than a minute.
    batch = replace(size, workers=2, delay_seconds=0.2, shard_tokens=1200, result_seconds=30.0)
    scenarios = [
        Scenario("A", [(KILL_WORKERS, kills), (DRAIN, 10)], size, callers=12),
        Scenario(
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
                (WEBHOOKS, 6),
            ],
            replace(size, workers=3, delay_seconds=0.3),
            callers=10,
        ),
        Scenario("C", [(LONG.fault, LONG.count)], batch, callers=0),
    ]
    chosen = [
        replace(scenario, plan=[step for step in scenario.plan if only in step[0].kind]) for scenario in scenarios
    ]
    return [scenario for scenario in chosen if scenario.plan]
